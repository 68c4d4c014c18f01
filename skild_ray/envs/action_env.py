"""The vector environment whose decisions are the environments' own actions."""

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from skild_ray.envs.lockstep import LockstepVectorEnv


class ActionVectorEnv(LockstepVectorEnv):
    """Every decision is one action, executed clipped to [-1, 1]: k is 1 in every step that is not a reset.

    Args:
        env_fns: makers of the environments.
        autoreset: see `LockstepVectorEnv`.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], *, autoreset: bool = True) -> None:
        envs = [make() for make in env_fns]
        actions = envs[0].action_space
        assert isinstance(actions, Box)
        super().__init__(envs, actions, horizon=1, autoreset=autoreset)

    def act(self) -> NDArray[np.float32]:
        return self.decisions
