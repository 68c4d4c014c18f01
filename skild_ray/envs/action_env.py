"""Low-level environments in lockstep, with the interface of the skill-level one."""

from collections.abc import Callable, Sequence
from functools import partial

import gymnasium as gym
from gymnasium.vector.utils import batch_space
from torch import Tensor

from skild_ray.envs.skill_env import SkillVectorEnv


class ActionVectorEnv(SkillVectorEnv):
    """`SkillVectorEnv` whose skills are the environments' own actions: H = 1, and a decoder that hands them on.

    Its action space is that of the environments; k is 1 in every step that is no reset.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], *, autoreset: bool = True) -> None:
        envs = [make() for make in env_fns]
        (action_dim,) = envs[0].action_space.shape or ()

        def hand_on(inputs: Tensor) -> Tensor:
            return inputs[:, -action_dim:]

        super().__init__([partial(_itself, env) for env in envs], hand_on, action_dim, horizon=1, autoreset=autoreset)
        self.single_action_space = envs[0].action_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)


def _itself(env: gym.Env) -> gym.Env:
    return env
