"""The networks of RLPD and their forward passes."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from skild_ray.algorithms.pretrained import load_action_policy, load_head
from skild_ray.algorithms.rlpd.cloned_policy import TanhPolicy
from skild_ray.algorithms.rlpd.losses import better_decisions
from skild_ray.algorithms.rlpd.settings import RLPDSettings, SkillRLPDSettings
from skild_ray.models.gaussian import Gaussian
from skild_ray.models.networks import BatchedEnsemble, Predictor, Standardizer
from skild_ray.runs.artifacts import Artifact, open_artifact
from skild_ray.stages import BEHAVIOURAL_CLONING, SKILL_POSTERIOR, SKILL_PRIOR


class RLPDTorchRLModule(TorchRLModule, InferenceOnlyAPI):
    """Policy pi(a|s), E critics with targets, and the temperature alpha.

    a = b tanh(u / b) with u ~ N(mu(s), sigma(s)^2): actions are in (-b, b), and b = 1. Observations enter standardised,
    by the statistics of the prior data, see `RLPD`; with `policy_init: cloned`, by those of the cloned policy.

    With `choose_by_q` the cloned policy proposes its mean action. Of that and the policy's own, the one with the larger
    min_{j in M} Q'_j(s, a) acts and bootstraps. M is a random subset of the target critics, or all of them where the
    policy is deterministic. Env runners then have the target critics.

    `model_config`: `algorithm`, the fields of `RLPDSettings`, and `run_dir`, the folder with the cloned policy.
    """

    settings: RLPDSettings
    bound = 1.0
    """b above."""
    policy: nn.Module
    """Of standardised observations [B, observation_dim] the means and log-sigmas of u [B, 2 D]."""
    cloned: nn.Module
    """The cloned policy, a Gaussian given observations as they are; frozen. Only with `choose_by_q`."""

    def setup(self) -> None:
        self.settings = settings = self.read_settings()
        if settings.choose_by_q:
            self.cloned = load_action_policy(self.artifact(BEHAVIOURAL_CLONING.name))
        if settings.policy_init == "cloned":
            start = load_action_policy(self.artifact(BEHAVIOURAL_CLONING.name))
            self.standardize, self.policy = start.standardize, TanhPolicy(start).requires_grad_(True)
        else:
            observation_dim, action_dim = self.observation_space.shape[0], self.action_space.shape[0]
            self.standardize = Standardizer(observation_dim)
            self.policy = Predictor(observation_dim, 2 * action_dim, settings.hidden, settings.layers - 1, norm="none")
        self.build_critics()
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Always evaluation mode: stored statistics of batch-norms, where a policy starts with them, must not move."""
        super().train(False)
        return self

    def artifact(self, stage: str) -> Artifact:
        """A finished stage in `run_dir`."""
        return open_artifact(Path(self.model_config["run_dir"]), stage)

    def read_settings(self) -> RLPDSettings:
        """The settings in `model_config`."""
        content = self.model_config["algorithm"]
        return cast(RLPDSettings, RLPDSettings.for_content(content).model_validate(content))

    def build_critics(self) -> None:
        """What the policy is trained with: nothing where it only acts, but for the critics by which it chooses."""
        settings, inputs = self.settings, self.observation_space.shape[0] + self.action_space.shape[0]
        if self.inference_only and not settings.choose_by_q:
            return
        critics = BatchedEnsemble(settings.critics, inputs, settings.hidden, settings.layers)
        if not self.inference_only:
            self.critics = critics
        self.target_critics = copy.deepcopy(critics).requires_grad_(False)
        if self.inference_only:
            return
        self.log_alpha = nn.Parameter(torch.tensor(math.log(settings.initial_temperature)))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))

    def get_non_inference_attributes(self) -> list[str]:
        return ["critics", *([] if self.settings.choose_by_q else ["target_critics"]), "log_alpha", "num_updates"]

    @property
    def updates_policy(self) -> bool:
        """Whether the next update is one of policy and temperature, too."""
        return (int(self.num_updates) + 1) % self.settings.critic_updates_per_policy_update == 0

    @torch.no_grad()
    def _forward_inference(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """The deterministic action b tanh(mu(s) / b), or the cloned policy's."""
        mean = self._gaussian(self.standardize(batch[Columns.OBS])).mean
        actions = self.bound * torch.tanh(mean / self.bound)
        if self.settings.choose_by_q:
            actions, _ = self.better(batch[Columns.OBS], actions)
        return {Columns.ACTIONS: actions}

    @torch.no_grad()
    def _forward_exploration(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """A sampled action, or the cloned policy's."""
        actions, _ = squashed_sample(self._gaussian(self.standardize(batch[Columns.OBS])), self.bound)
        if self.settings.choose_by_q:
            actions, _ = self.better(batch[Columns.OBS], actions, self._subset())
        return {Columns.ACTIONS: actions}

    def _forward_train(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Everything that `rlpd_losses` is made of.

        Returns:
            q [E, B]: critics at (s, a) of the batch.
            q_next [B]: smallest of a random subset of the target critics at (s_n, a_n ~ pi(s_n)), no gradient.
            later_log_pi [B, n]: log pi at (s_i, a_i ~ pi(s_i)) for the states s_1 .. s_n of the walk, no gradient; only
                with `backup_entropy`.
            alpha: scalar, gradient only where the policy is updated.
            cloned [B]: 1 where a_n is the cloned policy's, else 0; only with `choose_by_q`.
            q_policy [B], log_pi [B]: mean of the critics, and log pi, at (s, a ~ pi(s)), gradient to the policy only;
                log_sigma [B]: mean log sigma of the policy at s. Only where the policy is updated.
        """
        settings, states = self.settings, self.standardize(batch[Columns.OBS])
        alpha = self.log_alpha.exp()
        out = {"q": self.critics(torch.cat([states, batch[Columns.ACTIONS]], -1)), "alpha": alpha.detach()}
        with torch.no_grad():
            later = self.standardize(batch["later_states" if settings.backup_entropy else "next_obs"])
            actions, log_pi = squashed_sample(self._gaussian(later), self.bound)
            if settings.choose_by_q:
                actions, out["cloned"] = self.better(batch["next_obs"], actions, self._subset())
            ends = torch.cat([later, actions], -1)
            if settings.backup_entropy:
                ends, out["later_log_pi"] = ends[:, -1], log_pi
            out["q_next"] = self.target_critics(ends, self._subset()).amin(0)
        if self.updates_policy:
            out["alpha"] = alpha
            policy = self._gaussian(states)
            actions, out["log_pi"] = squashed_sample(policy, self.bound)
            self.critics.requires_grad_(False)
            out["q_policy"] = self.critics(torch.cat([states, actions], -1)).mean(0)
            self.critics.requires_grad_(True)
            out["log_sigma"] = policy.log_std.detach().mean(-1)
        return out

    def better(self, observations: Tensor, actions: Tensor, members: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of `actions` [B, D] and those of the cloned policy the ones with the larger Q; and 1 [B] where cloned.

        `members` are the indices of the target critics that judge; default: all.
        """
        candidates = torch.stack([actions, self.cloned_actions(observations)])
        states = self.standardize(observations).expand(len(candidates), -1, -1)
        pairs = torch.cat([states, candidates], -1)
        values = self.target_critics(pairs.flatten(0, 1), members).amin(0).unflatten(0, pairs.shape[:2])
        return better_decisions(candidates, values)

    def cloned_actions(self, observations: Tensor) -> Tensor:
        """The cloned policy's mean actions [B, D]."""
        mean: Tensor = self.cloned(observations).mean
        return mean.clamp(-self.bound, self.bound)

    def _gaussian(self, states: Tensor) -> Gaussian:
        """N(mu(s), sigma(s)^2) of standardised states."""
        return Gaussian.from_output(self.policy(states))

    def _subset(self) -> Tensor | None:
        """Indices of the target critics that bootstrap in this update; None for all."""
        settings = self.settings
        return torch.randperm(settings.critics)[: settings.critic_subset] if settings.draws_subset else None


class SkillRLPDTorchRLModule(RLPDTorchRLModule):
    """The same over skills z in (-b, b), b = `latent_bound`. The policy starts as the skill prior p(z|s), or posterior,
    with which it shares the form and the statistics of observations. The cloned policy is the posterior.

    `model_config`: `run_dir`, the folder with these, and `algorithm`, the fields of `SkillRLPDSettings`.
    """

    def setup(self) -> None:
        self.settings = settings = cast(SkillRLPDSettings, self.read_settings())
        self.bound = settings.latent_bound
        if settings.choose_by_q:
            self.cloned = load_head(self.artifact(SKILL_POSTERIOR.name))
        start = SKILL_POSTERIOR if settings.policy_init == "posterior" else SKILL_PRIOR
        head = load_head(self.artifact(start.name))
        self.standardize, self.policy = head.standardize, head.net.requires_grad_(True)
        self.build_critics()
        self.eval()

    def cloned_actions(self, observations: Tensor) -> Tensor:
        """b tanh(mu / b) of the posterior's mean mu: where the policy goes that starts from it."""
        mean: Tensor = self.cloned(observations).mean
        return self.bound * torch.tanh(mean / self.bound)


def squashed_sample(gaussian: Gaussian, bound: float = 1.0) -> tuple[Tensor, Tensor]:
    """a = b tanh(u / b), u ~ N reparameterised, [..., D], and the log-density of a / b in (-1, 1)^D, [...]:

    log N(u) - sum log(1 - tanh^2(u / b)) + D log b.
    """
    u = gaussian.sample()
    unit = u / bound
    # log(1 - tanh^2 x) without the cancellation at large |x|
    log_slope = 2 * (math.log(2) - unit - nn.functional.softplus(-2 * unit)) - math.log(bound)
    return bound * torch.tanh(unit), gaussian.log_prob(u) - log_slope.sum(-1)
