"""What the offline training loop needs to know of a stage."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skild_ray.config import Experiment, Training
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import DataError
from skild_ray.stages import DataKind

logger = logging.getLogger(__name__)

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Inputs:
    """Everything a stage is trained from, as it reaches each worker."""

    experiment: Experiment
    task_agnostic: Sequence[Trajectories]
    demonstrations: Sequence[Trajectories]
    weights: Mapping[str, Mapping[str, Tensor]]
    """Weights of finished stages, by stage name."""
    workers: int = 1
    """Which share a batch: each draws `batch_size / workers` of it."""

    def sources(self, kind: DataKind) -> Sequence[Trajectories]:
        """The trajectories of this kind, one entry a source."""
        sources: Sequence[Trajectories] = getattr(self, kind)
        return sources

    def split(self, kind: DataKind) -> tuple[list[Trajectories], list[Trajectories], list[float]]:
        """Training and held-out episodes of every source of 'task_agnostic' or 'demonstrations', and their weights.

        Episodes that are shorter than a skill, of which no window can be taken, are on neither side, in any stage: the
        discriminator then calls those states demonstrated for which stage 2 has learned skills.
        """
        horizon = self.experiment.skill.horizon
        fraction, seed = self.experiment.data.validation_fraction, self.experiment.seed
        pairs = [source.at_least(horizon).split(fraction, seed) for source in self.sources(kind)]
        weights = [source.weight for source in getattr(self.experiment.data, kind).values()]
        return [train for train, _ in pairs], [held_out for _, held_out in pairs], weights

    def require_windows(self, kinds: Sequence[DataKind]) -> None:
        """Log how many episodes of each source of these kinds are too short for a window of H steps.

        Raises:
            DataError: a source has fewer than two others, one to train on and one to hold out.
        """
        horizon = self.experiment.skill.horizon
        for kind in kinds:
            named = getattr(self.experiment.data, kind).items()
            for source, (name, entry) in zip(self.sources(kind), named, strict=True):
                place, of = f"data.{kind}.{name}", source.num_episodes
                if entry.dataset:
                    place += f" ({entry.dataset})"
                short = int((source.lengths < horizon).sum())
                if of - short < 2:
                    raise DataError(
                        f"{place}: {of - short} of its {of:,} episodes {'is' if of - short == 1 else 'are'} as long as "
                        f"the horizon of {horizon} transitions, the longest has {source.lengths.max()}; at least two "
                        "are needed, one to train on and one to hold out: add longer ones, or lower skill.horizon"
                    )
                if short:
                    logger.warning(
                        f"{place}: {short:,} of {of:,} episodes {'is' if short == 1 else 'are'} shorter than the "
                        f"horizon of {horizon} transitions, left out",
                    )


class Problem(Protocol):
    """A model, its batches and its loss."""

    module: nn.Module
    settings: Training
    version: ClassVar[int]
    """Raised when a change of the code changes what the stage makes; part of its fingerprint."""
    criteria: ClassVar[Mapping[str, str]]
    """Which of the losses on held-out episodes picks the best weights of each part of the module.

    A part is all weights whose names begin with its prefix and with no longer one. Parts are judged in this order, each
    beside those kept of the parts before it, so its loss must not depend on parts after it. The first one's is the
    stage's own.
    """

    def batch(self) -> Batch:
        """The next training batch."""

    def validation(self) -> Sequence[Batch]:
        """Fixed batches of held-out episodes."""

    def optimisers(self) -> Sequence[Optimizer]:
        """What steps the weights of `module`, each of them once; new at each call."""

    def losses(self, module: nn.Module, batch: Batch) -> Any:
        """A named tuple of scalars of which `total` is minimised; `module` is `self.module`, perhaps data-parallel."""

    def sampler_state(self) -> dict[str, Any]:
        """What `restore_sampler` needs to continue the sequence of batches exactly."""

    def restore_sampler(self, state: dict[str, Any]) -> None: ...

    @staticmethod
    def extra_files(inputs: Inputs, folder: Path) -> Sequence[Path]:
        """Files, written into `folder`, that the artifact holds beside the weights; the driver asks for them."""
        return ()


def worker_seed(experiment: Experiment, stage: str, rank: int) -> int:
    """Seed of one Train worker: its own for each stage and rank."""
    entropy = [experiment.seed, *stage.encode(), rank]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def chunks(batch: Batch, size: int) -> list[Batch]:
    """Split every tensor of a batch along its first axis into pieces of at most `size` rows."""
    return list(zip(*(torch.split(part, size) for part in batch), strict=True))
