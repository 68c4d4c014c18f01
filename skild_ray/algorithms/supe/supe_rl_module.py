"""The networks of SUPE and their forward passes."""

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from skild_ray.algorithms.rlpd.rlpd_rl_module import SkillRLPDTorchRLModule
from skild_ray.algorithms.supe.settings import SUPESettings
from skild_ray.models.networks import Predictor

MODELS = ("random_features", "feature_predictor", "reward_model", "survival_model")


class SUPETorchRLModule(SkillRLPDTorchRLModule):
    """Policy and critics of RLPD over skills, and models of a state and a skill: random features f0 and their
    predictor f, the reward r^, and the logit l of going on. Those that the settings do not need are None.

    Models see observations standardised as the policy does, and z / b in (-1, 1), as the paper's do.

    `model_config`: `run_dir`, the folder with the skill prior, and `algorithm`, the fields of `SUPESettings`.
    """

    settings: SUPESettings

    def build_critics(self) -> None:
        super().build_critics()
        if self.inference_only:
            return
        settings, inputs = self.settings, self.observation_space.shape[0] + self.action_space.shape[0]

        def network(outputs: int) -> Predictor:
            return Predictor(inputs, outputs, settings.hidden, settings.layers - 1, norm="none")

        explores, relabels = settings.bonus > 0, settings.relabel != "none"
        self.random_features = network(settings.hidden).requires_grad_(False) if explores else None
        self.feature_predictor = network(settings.hidden) if explores else None
        self.reward_model = network(1) if settings.relabel == "pred" else None
        self.survival_model = network(1) if relabels else None

    def get_non_inference_attributes(self) -> list[str]:
        return [*super().get_non_inference_attributes(), *MODELS]

    @property
    def model_parameters(self) -> list[nn.Parameter]:
        """Of all models, those that are trained."""
        models = [model for name in MODELS if (model := getattr(self, name)) is not None]
        return [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Everything that `supe_losses` is made of: that of `RLPDTorchRLModule`, and of the models that are in use

        novelty [B]: mean squared error of the predicted features at (s, z) of the batch.
        reward [B]: r^ there.
        survival [B]: l there; all three with gradient to their model.
        """
        out = super()._forward_train(batch, **kwargs)
        inputs = torch.cat([self.standardize(batch[Columns.OBS]), batch[Columns.ACTIONS] / self.bound], -1)
        if self.feature_predictor is not None and self.random_features is not None:
            out["novelty"] = (self.feature_predictor(inputs) - self.random_features(inputs)).square().mean(-1)
        if self.reward_model is not None:
            out["reward"] = self.reward_model(inputs).squeeze(-1)
        if self.survival_model is not None:
            out["survival"] = self.survival_model(inputs).squeeze(-1)
        return out
