"""The smallest environment with a sub-task, and its expert: walk to the right until the goal is reached."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class LineEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Observation: (position, goal). A step adds a tenth of the action to the position.

    Args:
        max_episode_steps: truncates.
        hopeless: probability that an episode cannot be solved, because actions have no effect.
        broken_above: `step` raises if the goal is further right than this.
        nan_above: observations are NaN if the goal is further right than this.
        dimensions: of the observation; those behind the first two are 0.
    """

    subtasks = ("goal",)
    return_range = (0.0, 1.0)

    def __init__(
        self,
        max_episode_steps: int = 40,
        hopeless: float = 0.0,
        broken_above: float = 9.0,
        nan_above: float = 9.0,
        dimensions: int = 2,
    ):
        self.observation_space = spaces.Box(-np.inf, np.inf, (dimensions,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.max_episode_steps = max_episode_steps
        self.hopeless, self.broken_above, self.nan_above = hopeless, broken_above, nan_above

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = 0.0, 0
        self.goal = float(self.np_random.uniform(0.5, 1.0))
        self.stuck = bool(self.np_random.uniform() < self.hopeless)
        return self._observe(), {"subtasks_solved": 0}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        if self.goal > self.broken_above:
            raise RuntimeError("the line\nbroke")
        assert self.action_space.contains(action)
        self.steps += 1
        self.position += 0.0 if self.stuck else 0.1 * float(action[0])
        solved = self.position >= self.goal
        truncated = self.steps == self.max_episode_steps
        return self._observe(), float(solved), solved, truncated, {"subtasks_solved": int(solved)}

    def _observe(self) -> NDArray[np.float32]:
        observation = np.zeros(self.observation_space.shape or (), np.float32)
        observation[:2] = self.position if self.goal <= self.nan_above else np.nan, self.goal
        return observation


class ConvertingLineEnv(LineEnv):
    """Takes data sets without the goal, too."""

    def convert_observations(self, observations: NDArray[Any]) -> NDArray[Any]:
        if observations.shape[1] == 2:
            return observations
        if observations.shape[1] != 1:
            raise ValueError("only a position can be converted")
        return np.concatenate((observations, np.ones_like(observations)), axis=1)


class TaskLineEnv(LineEnv):
    """Has tasks, which are all the same."""

    def __init__(self, task: str | list[str] = "any"):
        super().__init__()
        self.task = task


class LineExpert:
    """Walks to the right at random speed."""

    def __init__(self, env: gym.Env, rng: np.random.Generator, slowest: float = 0.5):
        self.rng, self.slowest = rng, slowest

    def reset(self, observation: NDArray[np.float32]) -> None:
        pass

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.rng.uniform(self.slowest, 1.0, 1).astype(np.float32)
