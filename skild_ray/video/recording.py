"""What is noted of an episode while it is played: enough to tell its course, and to play it again for a video."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.config import Environment


class Recorder(gym.Wrapper):
    """Notes what happens in the current episode and changes nothing of it.

    Attributes:
        actions: those executed so far.
        credited_at: env step (from 1) in which each sub-task solved so far was credited, in the order of the sub-tasks.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.actions: list[NDArray[np.float32]] = []
        self.credited_at: list[int] = []

    @classmethod
    def inside(cls, env: gym.Env) -> "Recorder":
        """The recorder in an environment that an algorithm's vector environment may have wrapped again."""
        while not isinstance(env, cls):
            assert isinstance(env, gym.Wrapper), "no recorder"
            env = env.env
        return env

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.actions, self.credited_at = [], []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: NDArray[np.float32]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.actions.append(action.copy())
        outcome = self.env.step(action)
        new = outcome[4].get("subtasks_solved", 0) - len(self.credited_at)
        if new > 0:
            self.credited_at += [len(self.actions)] * new
        return outcome


@dataclass(frozen=True)
class Recording:
    """An episode that can be played again: the environment, its seed and the actions [T, action_dim].

    `last_observation` is what the episode must end with; `subtasks` and `credited_at` are for its captions.
    """

    environment: Environment
    seed: int
    actions: NDArray[np.float32]
    last_observation: NDArray[np.float32]
    subtasks: tuple[str, ...]
    credited_at: tuple[int, ...]

    def save(self, path: Path) -> None:
        facts = {
            "environment": self.environment.model_dump(mode="json"),
            "seed": self.seed,
            "subtasks": self.subtasks,
            "credited_at": self.credited_at,
        }
        np.savez(path, facts=json.dumps(facts), actions=self.actions, last_observation=self.last_observation)

    @classmethod
    def load(cls, path: Path) -> "Recording":
        with np.load(path) as arrays:
            facts = json.loads(str(arrays["facts"]))
            return cls(
                Environment(**facts["environment"]),
                facts["seed"],
                arrays["actions"],
                arrays["last_observation"],
                tuple(facts["subtasks"]),
                tuple(facts["credited_at"]),
            )


def key_steps(subtasks: Sequence[str], credited_at: Sequence[int], env_steps: int) -> dict[int, str]:
    """Env steps worth a picture with their captions: the start, each sub-task's credit, the end."""
    captions = {0: "start"}
    for subtask, step in zip(subtasks, credited_at, strict=False):
        captions[step] = f"{captions[step]}, {subtask}" if step in captions else subtask
    captions.setdefault(env_steps, "end")
    return captions
