"""Stage 2: skill posterior q(z|s) on the demonstrations, encoder and decoder frozen (section 4.2)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skild_ray.data.windows import WindowSampler
from skild_ray.models.gaussian import Gaussian
from skild_ray.models.skill_model import SkillModel
from skild_ray.offline.optimisers import adamw
from skild_ray.offline.problem import Batch, Inputs, Problem, chunks
from skild_ray.stages import SKILL_PRIOR


class PosteriorLosses(NamedTuple):
    """Negative log-likelihood of skills, and how far the mean skill's actions are from the recorded ones.

    The latter is held-out windows' only.
    """

    total: Tensor
    action_mse: Tensor | None


class SkillPosteriorProblem(Problem):
    """Minimise -log q(z | s_0), summed over dimensions, of z ~ encoder(window) over the demonstrations' windows.

    The encoder is frozen, so the Gaussian it gives each window is computed once; an iteration draws z from it and
    noise on the standardised state, of std `observation_noise` times the root mean square of s_{H-1} - s_0, for each
    observation by itself. A policy is off its path by a share of what a skill moves: by less where corridors are narrow
    for the size of the maze, and hardly at all in the place of an object that nobody touches.

    With a handful of demonstrations the held-out likelihood soon falls, because the head grows too certain, while the
    actions that its mean skill decodes to, mean_t |decoder(s_t, mu(s_0)) - a_t|^2, still come closer to the held-out
    ones. Rollouts follow the latter, so it picks the weights.
    """

    version: ClassVar[int] = 2
    criteria: ClassVar[Mapping[str, str]] = {"": "action_mse"}

    def __init__(self, inputs: Inputs, seed: int) -> None:
        experiment = inputs.experiment
        self.settings = experiment.skill_posterior
        self._batch_size = self.settings.batch_size // inputs.workers
        train, held_out, weights = inputs.split("demonstrations")
        skill_model = SkillModel(train[0].observation_dim, train[0].action_dim, experiment.skill)
        skill_model.load_state_dict(inputs.weights[SKILL_PRIOR.name])
        skill_model.eval().requires_grad_(False)
        head = type(skill_model.prior)(train[0].observation_dim, experiment.skill)
        if self.settings.init_from_prior:
            head.load_state_dict(skill_model.prior.state_dict())
        head.standardize.load_state_dict(skill_model.standardize.state_dict())
        self.module = head

        horizon = experiment.skill.horizon
        self._sampler = WindowSampler(train, weights, horizon, seed)
        everything = self._sampler.all_windows(self._sampler.num_windows)
        self._states, self._mean, self._log_std = _encode(skill_model, everything)
        self._noise_std = self.settings.observation_noise * _displacement(skill_model, everything)
        self._generator = torch.Generator().manual_seed(seed + 1)
        self._skill_model = skill_model
        windows = WindowSampler(held_out, weights, horizon, seed).all_windows(self.settings.validation_samples)
        states, mean, log_std = _encode(skill_model, windows)
        self._held_out = (states, Gaussian(mean, log_std).sample(torch.Generator().manual_seed(seed)), *windows)

    def batch(self) -> Batch:
        rows = self._sampler.draw(self._batch_size)
        latents = Gaussian(self._mean[rows], self._log_std[rows]).sample(self._generator)
        noise = torch.randn(rows.numel(), self._states.shape[1], generator=self._generator)
        return self._states[rows] + self._noise_std * noise, latents

    def validation(self) -> Sequence[Batch]:
        return chunks(self._held_out, 4096)

    def optimisers(self) -> Sequence[Optimizer]:
        return [adamw(self.module.parameters(), self.settings)]

    def losses(self, module: nn.Module, batch: Batch) -> PosteriorLosses:
        states, latents, *windows = batch
        skills = module(states, standardised=True)
        error = None
        if windows:
            recorded_states, actions = windows
            decoded = self._skill_model.to(states.device).decode(recorded_states, skills.mean)
            error = (decoded - actions).square().mean()
        return PosteriorLosses(-skills.log_prob(latents).mean(), error)

    def sampler_state(self) -> dict[str, Any]:
        return {"windows": self._sampler.state_dict(), "generator": self._generator.get_state()}

    def restore_sampler(self, state: dict[str, Any]) -> None:
        self._sampler.load_state_dict(state["windows"])
        self._generator.set_state(state["generator"])


def _displacement(skill_model: SkillModel, windows: Batch) -> Tensor:
    """Root mean square of s_{H-1} - s_0 over the windows, standardised; shape [d]."""
    first, last = (skill_model.standardize(windows[0][:, step]) for step in (0, -1))
    return (last - first).square().mean(0).sqrt()


@torch.no_grad()
def _encode(skill_model: SkillModel, windows: Batch) -> Batch:
    """Standardised first state, mean and log-std of q(z | s, a) of every window."""
    parts = [
        (skill_model.standardize(states[:, 0]), *skill_model.encode(states, actions))
        for states, actions in chunks(windows, 1024)
    ]
    states, mean, log_std = (torch.cat(column) for column in zip(*parts, strict=True))
    return states, mean, log_std
