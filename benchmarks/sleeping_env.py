"""An environment that takes its time without taking a core: what scaling is measured with where cores are few."""

import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray


class SleepingEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Sleeps in every step and observes noise; as wide as the kitchen.

    Args:
        step_s: seconds a step sleeps.
        max_episode_steps: truncates.
    """

    observation_space = Box(-np.inf, np.inf, (60,), np.float32)
    action_space = Box(-1.0, 1.0, (9,), np.float32)

    def __init__(self, step_s: float = 0.0, max_episode_steps: int = 280) -> None:
        self._step_s, self._max_episode_steps, self._steps = step_s, max_episode_steps, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        time.sleep(self._step_s)
        self._steps += 1
        return self._observe(), 0.0, False, self._steps == self._max_episode_steps, {}

    def _observe(self) -> NDArray[np.float32]:
        return self.np_random.standard_normal(60, np.float32)
