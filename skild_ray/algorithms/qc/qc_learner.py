"""How the losses of Q-chunking are applied: one optimiser, target networks, metrics."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from skild_ray.algorithms.qc.losses import Update, qc_losses
from skild_ray.algorithms.qc.qc_rl_module import QCTorchRLModule


class _Latest(NamedTuple):
    """The last update, kept for its metrics."""

    module_id: str
    batch: Mapping[str, Tensor]
    out: Mapping[str, Tensor]
    update: Update


class QCTorchLearner(TorchLearner):
    """Minimises the sum of the losses of `skild_ray.algorithms.qc.losses`, whose docstring has the formulas."""

    _latest: _Latest

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module: QCTorchRLModule = self.module[module_id].unwrapped()
        parameters, rate = [p for p in module.parameters() if p.requires_grad], module.settings.learning_rate
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(parameters, lr=rate, fused=True),
            params=parameters,
            lr_or_lr_schedule=rate,
        )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Tensor], fwd_out: Mapping[str, Tensor]
    ) -> Tensor:
        module: QCTorchRLModule = self.module[module_id].unwrapped()
        update = qc_losses(batch, fwd_out, module.settings.distillation_weight)
        self._latest = _Latest(module_id, batch, fwd_out, update)
        return update.losses.total

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Step the optimiser, then move the target critics."""
        super().apply_gradients(gradients_dict)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule iterates over something else)
            module: QCTorchRLModule = self.module[module_id].unwrapped()
            module.target_critics.follow(module.critics, module.settings.target_update_rate)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log the last update of a round: logging every one would cost more than it tells."""
        super().after_gradient_based_update(timesteps=timesteps)
        module_id, batch, out, update = self._latest
        losses = update.losses
        values = {
            "critic_loss": losses.critic,
            "flow_loss": losses.flow,
            "q_1": out["q"][0].mean(),
            "q_2": out["q"][1].mean(),
            "q_target": update.target.mean(),
            "env_reward": batch["returns"].mean(),
        }
        if "proposal" in out:
            values |= {"policy_loss": losses.policy, "q_policy": out["q_policy"].mean()}
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
        self.metrics.log_dict(dict(zip(values, numbers, strict=True)), key=module_id, window=1)
