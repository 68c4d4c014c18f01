"""How the losses of Q-chunking are applied: one optimiser, target networks, metrics."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from skild_ray.algorithms.learner import Latest, LossesLearner
from skild_ray.algorithms.qc.losses import Update, qc_losses
from skild_ray.algorithms.qc.qc_rl_module import QCTorchRLModule


class QCTorchLearner(LossesLearner):
    """Minimises the losses of `skild_ray.algorithms.qc.losses`, whose module docstring has the formulas."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module: QCTorchRLModule = self.module[module_id].unwrapped()
        parameters, rate = [p for p in module.parameters() if p.requires_grad], module.settings.learning_rate
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(parameters, lr=rate, fused=True),
            params=parameters,
            lr_or_lr_schedule=rate,
        )

    def losses(self, module: QCTorchRLModule, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Update:
        return qc_losses(batch, out, module.settings.distillation_weight)

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Step the optimiser, then move the target critics."""
        super().apply_gradients(gradients_dict)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule iterates over something else)
            module: QCTorchRLModule = self.module[module_id].unwrapped()
            module.target_critics.follow(module.critics, module.settings.target_update_rate)

    def metrics_of(self, latest: Latest) -> dict[str, Tensor]:
        _, batch, out, update = latest
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
        return values
