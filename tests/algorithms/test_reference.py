"""What the released code does otherwise, each quirk by itself."""

import numpy as np
import torch
from counting_env import CountingEnv

from skild_ray.algorithms.skild.reference import TracedSkillVectorEnv, squashed
from skild_ray.envs.skill_env import SkillVectorEnv


def _raw(inputs: torch.Tensor) -> torch.Tensor:
    return 1.5 - inputs[:, :1] / 10


def test_trace_of_a_skill() -> None:
    env = TracedSkillVectorEnv([lambda: CountingEnv(max_steps=14)] * 2, _raw, 1, 10)
    env.reset(seed=0)
    skills = np.zeros((2, 1), np.float32)
    seen = []
    for _ in range(4):
        observations, *_, info = env.step(skills)
        seen.append((info["first_observation"][1, 0], info["last_reward"][1], observations[1, 0]))
    assert seen == [(1, 10, 10), (11, 14, 14), (0, 0, 0), (1, 10, 10)], "the third step resets"


def test_squashed_actions() -> None:
    low = CountingEnv()
    env = SkillVectorEnv([lambda: low], squashed(_raw), 1, 10)
    env.reset(seed=0)
    env.step(np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(np.concatenate(low.actions), np.tanh(1.5 - np.arange(10) / 10), rtol=1e-5)
