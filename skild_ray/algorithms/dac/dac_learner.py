"""How the losses of DAC are applied: RLPD's learner, with one optimiser more."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from skild_ray.algorithms.dac.dac_rl_module import DACTorchRLModule
from skild_ray.algorithms.dac.losses import dac_discriminator_loss, discriminator_returns
from skild_ray.algorithms.learner import Latest
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner


class DACTorchLearner(RLPDTorchLearner):
    """Minimises the losses of `skild_ray.algorithms.dac.losses`, whose module docstring has the formulas.

    The discriminator is stepped in every update, as the critics are.
    """

    reward_name = "discriminator_reward"

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        super().configure_optimizers_for_module(module_id, config)
        module: DACTorchRLModule = self.module[module_id].unwrapped()
        parameters = [*module.discriminator.parameters(), module.absorbing_logit]
        rate = module.settings.discriminator_lr
        self.register_optimizer(
            module_id=module_id,
            optimizer_name="discriminator",
            optimizer=torch.optim.Adam(parameters, lr=rate, fused=True),
            params=parameters,
            lr_or_lr_schedule=rate,
        )

    def compute_loss_for_module(self, *, fwd_out: Mapping[str, Tensor], **kwargs: Any) -> Tensor:
        module: DACTorchRLModule = self.module[kwargs["module_id"]].unwrapped()
        batch = kwargs["batch"]
        rewarded = {**batch, "returns": discriminator_returns(module.settings, batch, fwd_out)}
        loss = super().compute_loss_for_module(fwd_out=fwd_out, **kwargs | {"batch": rewarded})
        self._discriminator_loss = dac_discriminator_loss(module.settings, batch, fwd_out)
        return loss + self._discriminator_loss

    def metrics_of(self, latest: Latest) -> dict[str, Tensor]:
        return super().metrics_of(latest) | {
            "discriminator_loss": self._discriminator_loss,
            "p_demo": torch.sigmoid(latest.out["logits"][:, 0]).mean(),
            "p_demo_absorbing": torch.sigmoid(latest.out["absorbing"]),
        }
