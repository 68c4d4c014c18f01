"""How the losses of DAC are applied: RLPD's learner, with one optimiser more."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from skild_ray.algorithms.dac.dac_rl_module import DACTorchRLModule
from skild_ray.algorithms.dac.losses import dac_discriminator_loss, discriminator_returns
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner


class DACTorchLearner(RLPDTorchLearner):
    """Minimises the losses of `skild_ray.algorithms.dac.losses`, whose module docstring has the formulas.

    The discriminator is stepped in every update, as the critics are.
    """

    reward_name = "discriminator_reward"

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        super().configure_optimizers_for_module(module_id, config)
        module: DACTorchRLModule = self.module[module_id].unwrapped()
        parameters, rate = (
            [*module.discriminator.parameters(), module.absorbing_logit],
            module.settings.discriminator_lr,
        )
        self.register_optimizer(
            module_id=module_id,
            optimizer_name="discriminator",
            optimizer=torch.optim.Adam(parameters, lr=rate, fused=True),
            params=parameters,
            lr_or_lr_schedule=rate,
        )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Tensor], fwd_out: Mapping[str, Tensor]
    ) -> Tensor:
        module: DACTorchRLModule = self.module[module_id].unwrapped()
        returns = discriminator_returns(module.settings, batch, fwd_out)
        loss = super().compute_loss_for_module(
            module_id=module_id, config=config, batch={**batch, "returns": returns}, fwd_out=fwd_out
        )
        self._discriminator_loss = dac_discriminator_loss(module.settings, batch, fwd_out)
        return loss + self._discriminator_loss

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        module_id, out = self._latest.module_id, self._latest.out
        values = {
            "discriminator_loss": self._discriminator_loss,
            "p_demo": torch.sigmoid(out["logits"][:, 0]).mean(),
            "p_demo_absorbing": torch.sigmoid(out["absorbing"]),
        }
        numbers = torch.stack([value.detach().float() for value in values.values()]).tolist()
        self.metrics.log_dict(dict(zip(values, numbers, strict=True)), key=module_id, window=1)
