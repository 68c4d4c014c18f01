"""The networks of DAC and their forward passes."""

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from skild_ray.algorithms.dac.settings import DACSettings
from skild_ray.algorithms.rlpd.rlpd_rl_module import RLPDTorchRLModule
from skild_ray.models.discriminator import Discriminator


class DACTorchRLModule(RLPDTorchRLModule):
    """RLPD's networks, and the discriminator d(s, a) of standardised observations with its number d_abs.

    `model_config`: as there, `algorithm` has the fields of `DACSettings`.
    """

    settings: DACSettings

    def build_critics(self) -> None:
        super().build_critics()
        if self.inference_only:
            return
        settings, inputs = self.settings, self.observation_space.shape[0] + self.action_space.shape[0]
        self.discriminator = Discriminator(inputs, settings.discriminator_hidden, settings.discriminator_layers - 1)
        self.absorbing_logit = nn.Parameter(torch.zeros(()))

    def get_non_inference_attributes(self) -> list[str]:
        return [*super().get_non_inference_attributes(), "discriminator", "absorbing_logit"]

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """What RLPD's losses and DAC's are made of.

        Returns:
            See `RLPDTorchRLModule`, and:
            logits [B, n]: d along the walks, no gradient.
            positive, negative [B]: d of the demonstrated and of the own transitions.
            slope [B]: |grad d| at points between both; only with `gradient_penalty`.
            absorbing: d_abs, scalar.
        """
        out = super()._forward_train(batch)
        with torch.no_grad():
            out["logits"] = self.discriminator(self._pairs(batch["n_step_states"], batch["n_step_actions"]))
        demonstrated, own = (
            self._pairs(batch[f"{source}_{Columns.OBS}"], batch[f"{source}_{Columns.ACTIONS}"])
            for source in ("demonstrated", "own")
        )
        out["positive"], out["negative"] = self.discriminator(torch.cat([demonstrated, own])).chunk(2)
        if self.settings.gradient_penalty > 0:
            between = torch.lerp(own, demonstrated, torch.rand_like(own[:, :1])).requires_grad_()
            (gradient,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
            out["slope"] = gradient.norm(dim=-1)
        # Several learners take a parameter that is an output itself for one that has no gradient.
        out["absorbing"] = self.absorbing_logit.clone()
        return out

    def _pairs(self, observations: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([self.standardize(observations), actions], -1)
