"""The networks of plain SAC and their forward passes."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from skild_ray.algorithms.sac.settings import SACSettings
from skild_ray.models.gaussian import Gaussian
from skild_ray.models.networks import Ensemble, Predictor


class SACTorchRLModule(TorchRLModule, InferenceOnlyAPI):
    """Policy pi(a|s), twin critics with targets, and the temperature alpha.

    a = tanh(u) with u ~ N(mu(s), sigma(s)^2), so that actions are in (-1, 1). Observations enter as they are.

    `model_config`: `algorithm`, the fields of `SACSettings`.
    """

    def setup(self) -> None:
        self.settings = settings = SACSettings.model_validate(self.model_config["algorithm"])
        observation_dim, action_dim = self.observation_space.shape[0], self.action_space.shape[0]
        self.policy = Predictor(observation_dim, 2 * action_dim, settings.hidden, layers=1, norm="none")
        if self.inference_only:
            return
        self.critics = Ensemble(2, observation_dim + action_dim, settings.hidden, 1, settings.critic_norm)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(settings.initial_temperature)))

    def get_non_inference_attributes(self) -> list[str]:
        return ["critics", "target_critics", "log_alpha"]

    @torch.no_grad()
    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """The deterministic action tanh(mu(s))."""
        return {Columns.ACTIONS: torch.tanh(self._gaussian(batch[Columns.OBS]).mean)}

    @torch.no_grad()
    def _forward_exploration(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """A sampled action."""
        return {Columns.ACTIONS: torch.tanh(self._gaussian(batch[Columns.OBS]).sample())}

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Everything the losses of `SACTorchLearner` are made of.

        Returns:
            q [2, B]: critics at (s, a) of the batch.
            q_policy [B], log_pi [B]: smaller critic and log pi at (s, a ~ pi(s)), gradient to the policy only.
            later_log_pi [B, n]: log pi at (s_i, a_i ~ pi(s_i)) for the states s_1 .. s_n of the walk, no gradient.
            q_next [B]: smaller target critic at (s_n, a_n), no gradient.
            log_sigma [B]: mean log sigma of the policy at s.
        """
        states, later_states = batch[Columns.OBS], batch["later_states"]
        policy = self._gaussian(states)
        out = {
            "q": self.critics(torch.cat([states, batch[Columns.ACTIONS]], -1)),
            "log_sigma": policy.log_std.detach().mean(-1),
        }
        actions, out["log_pi"] = squashed_sample(policy)
        self.critics.requires_grad_(False)
        out["q_policy"] = self.critics(torch.cat([states, actions], -1)).amin(0)
        self.critics.requires_grad_(True)
        with torch.no_grad():
            later_actions, out["later_log_pi"] = squashed_sample(self._gaussian(later_states))
            out["q_next"] = self.target_critics(torch.cat([later_states, later_actions], -1)[:, -1]).amin(0)
        out["log_alpha"] = self.log_alpha
        return out

    def _gaussian(self, observations: Tensor) -> Gaussian:
        return Gaussian.from_output(self.policy(observations))


def squashed_sample(gaussian: Gaussian) -> tuple[Tensor, Tensor]:
    """a = tanh(u), u ~ N reparameterised, [..., D], and its log-density log N(u) - sum log(1 - tanh^2 u), [...]."""
    u = gaussian.sample()
    # log(1 - tanh^2 u) without the cancellation at large |u|
    log_slope = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
    return torch.tanh(u), gaussian.log_prob(u) - log_slope.sum(-1)
