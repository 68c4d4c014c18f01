"""The vector environment whose decisions are chunks: the environments' own actions of the next h steps."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from skild_ray.envs.lockstep import LockstepVectorEnv


class ChunkVectorEnv(LockstepVectorEnv):
    """Chunk (a_t, .., a_{t+h-1}) in s_t executes these actions open loop; what an episode's end cuts off is dropped.

    Info of every step has, besides that of `LockstepVectorEnv`, what happened within the chunk; rows k .. h-1 are
    meaningless.
        states: s_t, .., s_{t+h-1}, [h, observation_dim].
        step_rewards: r_t, .., r_{t+h-1}, [h].

    Args:
        env_fns: makers of the environments.
        length: h.
        autoreset: see `LockstepVectorEnv`.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], length: int, *, autoreset: bool = True) -> None:
        envs = [make() for make in env_fns]
        actions = envs[0].action_space
        assert isinstance(actions, Box)
        chunks = Box(np.tile(actions.low, length), np.tile(actions.high, length), dtype=np.float32)
        super().__init__(envs, chunks, length, autoreset=autoreset)
        self._states = np.zeros((self.num_envs, length, self._observations.shape[1]), np.float32)
        self._position = 0

    def act(self) -> NDArray[np.float32]:
        self._states[:, self._position] = self._observations
        actions = self.decisions.reshape(self.num_envs, self.horizon, -1)[:, self._position]
        self._position += 1
        return actions

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """As `LockstepVectorEnv.step`."""
        self._position = 0
        *result, info = super().step(actions)
        within = {"states": self._states.copy(), "step_rewards": self.step_rewards.astype(np.float32)}
        return *result, info | within  # type: ignore[return-value]
