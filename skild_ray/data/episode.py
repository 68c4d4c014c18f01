"""One episode on its way from an environment or a file into memory or a Minari data set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Episode:
    """T transitions of one episode.

    Attributes:
        observations: [T + 1, observation_dim], or [T, observation_dim] where the source lacks the last state.
        actions: [T, action_dim], those that were meant: what a policy learns to do.
        executed_actions: [T, action_dim], those that led to the states, where noise was added to the ones that were
            meant: what a critic learns from. None where they are the same.
        rewards: [T], or None where the source has none.
        terminated: whether the environment ended the episode, rather than a time limit or the recording.
        seed: of `env.reset`, where known.
        subtasks: names of the sub-tasks in the order in which the episode solves them, where known.
    """

    observations: NDArray[np.floating]
    actions: NDArray[np.floating]
    rewards: NDArray[np.floating] | None = None
    terminated: bool = False
    seed: int | None = None
    subtasks: tuple[str, ...] = ()
    executed_actions: NDArray[np.floating] | None = None
