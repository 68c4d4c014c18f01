"""Behavioural cloning: a policy pi(a|s) over actions on the demonstrations, a baseline without skills."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skild_ray.data.windows import WindowSampler
from skild_ray.models.action_policy import ActionPolicy
from skild_ray.offline.optimisers import adamw
from skild_ray.offline.problem import Batch, Inputs, Problem


class CloningLosses(NamedTuple):
    """Negative log-likelihood of the recorded actions, and the squared error of the mean action."""

    total: Tensor
    squared_error: Tensor


class BehaviouralCloningProblem(Problem):
    """Minimise -log pi(a|s), summed over dimensions, over the states and actions of the demonstrations.

    The weights are kept at their lowest held-out squared error, mean |mu(s) - a|^2 over states and dimensions: with a
    handful of demonstrations the held-out likelihood soon falls, because sigma is that of the training error, while the
    mean action still improves.
    """

    version: ClassVar[int] = 1
    criteria: ClassVar[Mapping[str, str]] = {"": "squared_error"}

    def __init__(self, inputs: Inputs, seed: int) -> None:
        self.settings = settings = inputs.experiment.behavioural_cloning
        self._batch_size = settings.batch_size // inputs.workers
        train, held_out, weights = inputs.split("demonstrations")
        self.module = ActionPolicy(train[0].observation_dim, train[0].action_dim, settings)
        self.module.standardize.fit(torch.cat([torch.from_numpy(source.observations) for source in train]))
        self._sampler = WindowSampler(train, weights, 1, seed)
        states, actions = WindowSampler(held_out, weights, 1, seed).all_windows(settings.validation_samples)
        self._held_out = states[:, 0], actions[:, 0]

    def batch(self) -> Batch:
        states, actions = self._sampler.sample(self._batch_size)
        return states[:, 0], actions[:, 0]

    def validation(self) -> Sequence[Batch]:
        return [self._held_out]

    def optimisers(self) -> Sequence[Optimizer]:
        return [adamw(self.module.parameters(), self.settings)]

    def losses(self, module: nn.Module, batch: Batch) -> CloningLosses:
        states, actions = batch
        policy = module(states, self.settings.observation_noise if module.training else 0.0)
        return CloningLosses(-policy.log_prob(actions).mean(), (policy.mean - actions).square().mean())

    def sampler_state(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def restore_sampler(self, state: dict[str, Any]) -> None:
        self._sampler.load_state_dict(state)
