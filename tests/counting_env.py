"""An environment whose rewards tell the time: step t pays t + 1 and leads to state t + 1."""

import threading

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray


class CountingEnv(gym.Env):
    """Observes [steps taken, seed]; terminates after `done_after` steps or is cut at `max_steps`."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, done_after: int | None = None, max_steps: int = 1000) -> None:
        self.done_after, self.max_steps = done_after, max_steps
        self.actions: list[NDArray] = []
        self.seeds: list[int | None] = []
        self.closed = False

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        self.steps = 0
        self.seeds.append(seed)
        return np.array([0, seed or 0], np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        self.steps += 1
        self.actions.append(np.array(action))
        observation = np.array([self.steps, 0], np.float32)
        return observation, float(self.steps), self.steps == self.done_after, self.steps >= self.max_steps, {}

    def close(self) -> None:
        self.closed = True


class RandomLengthEnv(CountingEnv):
    """Episodes of 1 to 40 steps, drawn at reset; every second one terminates.

    Args:
        fail_at: the step, of all that this object has made, that raises.
        hang_at: the one that never returns.
        unit: factor on the rewards.
    """

    def __init__(self, fail_at: int | None = None, hang_at: int | None = None, unit: float = 1.0) -> None:
        super().__init__()
        self.fail_at, self.hang_at, self.total, self.unit = fail_at, hang_at, 0, unit

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        gym.Env.reset(self, seed=seed)
        length = int(self.np_random.integers(1, 41))
        self.done_after = length if length % 2 else None
        self.max_steps = 1000 if length % 2 else length
        self.seeds.clear()
        self.actions.clear()
        return super().reset(seed=seed)

    def step(self, action):  # type: ignore[no-untyped-def]
        self.total += 1
        if self.total == self.fail_at:
            raise RuntimeError("the counter broke")
        if self.total == self.hang_at:
            threading.Event().wait()
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, self.unit * reward, terminated, truncated, info
