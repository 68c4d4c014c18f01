"""How the losses of plain SAC are applied: optimisers, target networks, metrics."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from skild_ray.algorithms.sac.losses import Update, sac_losses
from skild_ray.algorithms.sac.sac_rl_module import SACTorchRLModule


class _Latest(NamedTuple):
    """The last update, kept for its metrics."""

    module_id: str
    batch: Mapping[str, Tensor]
    out: Mapping[str, Tensor]
    update: Update


class SACTorchLearner(TorchLearner):
    """Minimises the losses of `skild_ray.algorithms.sac.losses`, whose module docstring has the formulas.

    They are summed and differentiated once; no parameter is in two of them.
    """

    _latest: _Latest

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module: SACTorchRLModule = self.module[module_id].unwrapped()
        rate = module.settings.learning_rate
        groups = {
            "critic": list(module.critics.parameters()),
            "policy": list(module.policy.parameters()),
            "alpha": [module.log_alpha],
        }
        for name, parameters in groups.items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(parameters, lr=rate, fused=True),
                params=parameters,
                lr_or_lr_schedule=rate,
            )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Tensor], fwd_out: Mapping[str, Tensor]
    ) -> Tensor:
        module: SACTorchRLModule = self.module[module_id].unwrapped()
        update = sac_losses(batch, fwd_out, module.action_space.shape[0])
        self._latest = _Latest(module_id, batch, fwd_out, update)
        return update.losses.total

    def apply_gradients(self, gradients_dict: Mapping[Any, Tensor]) -> None:
        """Step the optimisers, then move the target critics."""
        super().apply_gradients(gradients_dict)
        for module_id in self.module.keys():  # noqa: SIM118 (a MultiRLModule iterates over something else)
            module: SACTorchRLModule = self.module[module_id].unwrapped()
            module.target_critics.follow(module.critics, module.settings.target_update_rate)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Log the last update of a round: logging every one would cost more than it tells."""
        super().after_gradient_based_update(timesteps=timesteps)
        module_id, batch, out, update = self._latest
        losses = update.losses
        values = {
            "policy_loss": losses.policy,
            "critic_loss": losses.critic,
            "alpha_loss": losses.alpha,
            "temperature": out["log_alpha"].exp(),
            "entropy": -out["log_pi"].mean(),
            "q_1": out["q"][0].mean(),
            "q_2": out["q"][1].mean(),
            "q_target": update.target.mean(),
            "q_policy": out["q_policy"].mean(),
            "policy_log_sigma": out["log_sigma"].mean(),
            "env_reward": batch["returns"].mean(),
        }
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
        self.metrics.log_dict(dict(zip(values, numbers, strict=True)), key=module_id, window=1)
