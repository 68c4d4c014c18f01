"""SkiLD's update as a plain torch loop: what RLlib's learner is compared with."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skild_ray.algorithms.skild import SkiLDTorchRLModule
from skild_ray.algorithms.skild.skild_learner import discriminator_reward


class BareLearner:
    """The losses, optimisers and target update of `SkiLDTorchLearner` with fixed alphas, and nothing else.

    One `update` changes the weights as the learner's does on the same batch.
    """

    def __init__(self, module: SkiLDTorchRLModule) -> None:
        settings = module.settings
        if settings.learn_alphas or settings.discriminator_rate > 0 or settings.reference_quirks:
            raise ValueError("the bare loop knows fixed alphas, a frozen discriminator and no quirks")
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
        settings, out = self.settings, self.module._forward_train(batch)
        with torch.no_grad():
            alpha, alpha_q = self.module.log_alpha.exp(), self.module.log_alpha_q.exp()
            support = torch.sigmoid(out["logits"][:, 0])
            reward_d = (batch["n_step_weights"] * discriminator_reward(settings, out["logits"])).sum(-1)
            weight = settings.env_reward_weight
            value = out["q_next"]
            if settings.kl_in_target:
                next_support = torch.sigmoid(out["next_logits"])
                value = value - alpha * (1 - next_support) * out["kl_prior_next"]
                value = value - alpha_q * next_support * out["kl_posterior_next"]
            target = (1 - weight) * reward_d + weight * batch["returns"] + batch["bootstrap"] * value
        critic_loss = 0.5 * (out["q"] - target).square().mean(1).sum()
        divergence = alpha * (1 - support) * out["kl_prior"] + alpha_q * support * out["kl_posterior"]
        policy_loss = (divergence - out["q_policy"]).mean()

        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        (critic_loss + policy_loss).backward()
        limit = settings.gradient_clip or float("inf")
        for parameters, optimizer in zip((self._critic, self._policy), self._optimizers, strict=True):
            nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._critic, settings.target_update_rate)
