"""SkiLD's update as a plain torch loop: what RLlib's learner is compared with."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skild_ray.algorithms.skild.losses import skild_losses
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule


class BareLearner:
    """`skild_losses` with the optimisers and target update of `SkiLDTorchLearner`, fixed alphas, and nothing else.

    One `update` changes the weights as the learner's does on the same batch.
    """

    def __init__(self, module: SkiLDTorchRLModule) -> None:
        settings = module.settings
        if settings.learn_alphas or settings.discriminator_rate > 0:
            raise ValueError("the bare loop knows fixed alphas, and a frozen discriminator only")
        self.module, self.settings = module, settings
        self._critic: list[Tensor] = list(module.critics.parameters())
        self._policy: list[Tensor] = [parameter for parameter in module.policy.parameters() if parameter.requires_grad]
        self._targets: list[Tensor] = list(module.target_critics.parameters())
        self._optimizers = [
            torch.optim.AdamW(self._critic, lr=settings.critic_lr, weight_decay=0.0, fused=True),
            torch.optim.AdamW(self._policy, lr=settings.policy_lr, weight_decay=0.0, fused=True),
        ]

    def update(self, batch: Mapping[str, Tensor]) -> None:
        """One step of critics and policy, then of the target critics."""
        settings = self.settings
        losses = skild_losses(settings, batch, self.module._forward_train(batch)).losses
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        limit = settings.gradient_clip or float("inf")
        for parameters, optimizer in zip((self._critic, self._policy), self._optimizers, strict=True):
            nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._critic, settings.target_update_rate)
