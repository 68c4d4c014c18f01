"""The skill-level environment: a decision is a skill z, which a frozen decoder turns into up to H environment steps."""

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Tensor

from skild_ray.envs.lockstep import LockstepVectorEnv

Decoder = Callable[[Tensor], Tensor]
"""Maps [N, observation_dim + latent_dim] to actions [N, action_dim]."""


class SkillVectorEnv(LockstepVectorEnv):
    """Skill z in s_t executes a_{t+i} = clip(decoder(s_{t+i}, z), -1, 1), H times unless the episode ends earlier.

    The decoder gets all N environments in one forward pass for each environment step.

    Args:
        env_fns: makers of the low-level environments.
        decoder: see above.
        latent_dim: dimensions of z.
        horizon: H.
        autoreset: see `LockstepVectorEnv`.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        decoder: Decoder,
        latent_dim: int,
        horizon: int,
        *,
        autoreset: bool = True,
    ) -> None:
        skills = Box(-np.inf, np.inf, (latent_dim,), np.float32)
        super().__init__([make() for make in env_fns], skills, horizon, autoreset=autoreset)
        self._decoder, self._tensor = decoder, torch.from_numpy(self.inputs)  # of the same memory

    @torch.inference_mode()
    def act(self) -> NDArray[np.float32]:
        actions: NDArray[np.float32] = self._decoder(self._tensor).numpy()
        return actions
