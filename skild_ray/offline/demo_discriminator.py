"""Stage 3: demonstration discriminator D(s), demonstration states against task-agnostic states (section 4.2)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from skild_ray.data.trajectories import Trajectories
from skild_ray.data.windows import WindowSampler
from skild_ray.models.discriminator import Discriminator, discriminator_loss
from skild_ray.offline.optimisers import adamw
from skild_ray.offline.problem import Batch, Inputs, Problem
from skild_ray.runs.artifacts import writable
from skild_ray.stages import DEMONSTRATIONS_FILE


class DiscriminatorLosses(NamedTuple):
    """Cross-entropy and the mean of D on either class."""

    total: Tensor
    d_demonstrations: Tensor
    d_task_agnostic: Tensor


class DemoDiscriminatorProblem(Problem):
    """Minimise the cross-entropy of `Discriminator` on demonstration and task-agnostic states.

    Negatives are the task-agnostic sources but for those with `negatives: false`, less the episodes that equal a
    demonstration bit for bit.
    """

    version: ClassVar[int] = 1
    criteria: ClassVar[Mapping[str, str]] = {"": "total"}

    def __init__(self, inputs: Inputs, seed: int) -> None:
        experiment = inputs.experiment
        self.settings = settings = experiment.demo_discriminator
        self._batch_size = settings.batch_size // inputs.workers
        demos, held_out_demos, demo_weights = inputs.split("demonstrations")
        others, held_out_others, other_weights = _negatives(inputs)
        known = {_key(demo, i) for source in inputs.demonstrations for demo, i in _episodes(source)}
        others, kept_weights = _without(known, others, other_weights)
        held_out_others, held_out_weights = _without(known, held_out_others, other_weights)
        self.module = Discriminator(demos[0].observation_dim, settings.hidden, settings.layers)
        if experiment.skill.standardize:
            states = [torch.from_numpy(source.observations) for source in inputs.split("task_agnostic")[0]]
            self.module.standardize.fit(torch.cat(states))
        self._demos = WindowSampler(demos, demo_weights, 1, seed)
        self._others = WindowSampler(others, kept_weights, 1, seed + 1)
        limit = settings.validation_samples
        positive, _ = WindowSampler(held_out_demos, demo_weights, 1, seed).all_windows(limit)
        negative, _ = WindowSampler(held_out_others, held_out_weights, 1, seed).all_windows(len(positive))
        size = min(len(positive), len(negative))
        self._held_out = (positive[:size, 0], negative[:size, 0])

    def batch(self) -> Batch:
        size = self._batch_size
        return self._demos.sample(size)[0][:, 0], self._others.sample(size)[0][:, 0]

    def validation(self) -> Sequence[Batch]:
        return [self._held_out]

    def optimisers(self) -> Sequence[Optimizer]:
        return [adamw(self.module.parameters(), self.settings)]

    def losses(self, module: nn.Module, batch: Batch) -> DiscriminatorLosses:
        noise = self.settings.observation_noise if module.training else 0.0
        positive, negative = module(torch.cat(batch), noise).chunk(2)
        loss = discriminator_loss(positive, negative, self.settings.label_smoothing)
        return DiscriminatorLosses(loss, positive.sigmoid().mean(), negative.sigmoid().mean())

    def sampler_state(self) -> dict[str, Any]:
        return {"demos": self._demos.state_dict(), "others": self._others.state_dict()}

    def restore_sampler(self, state: dict[str, Any]) -> None:
        self._demos.load_state_dict(state["demos"])
        self._others.load_state_dict(state["others"])

    @staticmethod
    def extra_files(inputs: Inputs, folder: Path) -> Sequence[Path]:
        """All demonstrations, for whatever trains on their states later."""
        together = Trajectories.concatenate(inputs.demonstrations)
        path = folder / DEMONSTRATIONS_FILE
        with writable(path):
            arrays: dict[str, NDArray] = {
                "observations": together.observations,
                "actions": together.actions,
                "ends": together.ends,
            }
            safetensors.numpy.save_file(arrays, path)
        return [path]


def _negatives(inputs: Inputs) -> tuple[list[Trajectories], list[Trajectories], list[float]]:
    """What `Inputs.split` gives of the task-agnostic sources, less those with `negatives: false`."""
    sources = inputs.experiment.data.task_agnostic.values()
    kept = [
        parts
        for parts, source in zip(zip(*inputs.split("task_agnostic"), strict=True), sources, strict=True)
        if source.negatives
    ]
    train, held_out, weights = zip(*kept, strict=True)
    return list(train), list(held_out), list(weights)


def _episodes(source: Trajectories) -> list[tuple[Trajectories, int]]:
    return [(source, index) for index in range(source.num_episodes)]


def _key(source: Trajectories, index: int) -> bytes:
    observations, actions = source.episode(index)
    return np.asarray(observations).tobytes() + np.asarray(actions).tobytes()


def _without(
    known: set[bytes], sources: Sequence[Trajectories], weights: Sequence[float]
) -> tuple[list[Trajectories], list[float]]:
    """The sources less the episodes in `known`. A source that consists of them only is dropped."""
    kept = []
    for source, weight in zip(sources, weights, strict=True):
        rest = [index for index in range(source.num_episodes) if _key(source, index) not in known]
        if rest:
            kept.append((source if len(rest) == source.num_episodes else source.select(np.array(rest)), weight))
    if not kept:  # nothing but demonstrations on both sides: D cannot tell them apart, and should not
        return list(sources), list(weights)
    return [source for source, _ in kept], [weight for _, weight in kept]
