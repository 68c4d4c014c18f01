"""How the losses of SUPE are applied: those of RLPD, with one more optimiser and more metrics."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from skild_ray.algorithms.learner import Latest
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner
from skild_ray.algorithms.supe.losses import Update, supe_losses
from skild_ray.algorithms.supe.supe_rl_module import SUPETorchRLModule


class SUPETorchLearner(RLPDTorchLearner):
    """Minimises the losses of `skild_ray.algorithms.supe.losses`, whose module docstring has the formulas."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        super().configure_optimizers_for_module(module_id, config)
        module: SUPETorchRLModule = self.module[module_id].unwrapped()
        parameters, rate = module.model_parameters, module.settings.learning_rate
        if parameters:
            self.register_optimizer(
                module_id=module_id,
                optimizer_name="models",
                optimizer=torch.optim.Adam(parameters, lr=rate, fused=True),
                params=parameters,
                lr_or_lr_schedule=rate,
            )

    def losses(  # type: ignore[override]
        self, module: SUPETorchRLModule, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]
    ) -> Update:
        settings = module.settings
        return supe_losses(batch, out, settings.entropy_target(module.action_space.shape[0]), settings.bonus)

    def metrics_of(self, latest: Latest) -> dict[str, Tensor]:
        update: Update = latest.update
        return super().metrics_of(latest) | {
            "env_reward": update.reward.mean(),
            "exploration_bonus": update.bonus.mean(),
            "rl_training_reward": (update.reward + update.bonus).mean(),
            "rnd_loss": update.losses.rnd,
            "reward_model_loss": update.losses.reward_model,
            "termination_loss": update.losses.termination,
        }
