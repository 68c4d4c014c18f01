"""The vector environment of plain actions behaves as the environments it steps."""

import numpy as np
from counting_env import CountingEnv
from line_world import LineEnv

from skild_ray.envs.action_env import ActionVectorEnv


def test_steps_are_the_environments() -> None:
    env, bare = ActionVectorEnv([LineEnv] * 2), LineEnv()
    observations, _ = env.reset(seed=[3, 4])
    np.testing.assert_array_equal(observations[1], bare.reset(seed=4)[0])
    assert env.single_action_space == bare.action_space
    for action in (0.5, -3.0, 1.0):
        observations, rewards, _, _, info = env.step(np.array([[0.0], [action]], np.float32))
        expected = bare.step(np.array([np.clip(action, -1, 1)], np.float32))
        np.testing.assert_array_equal(observations[1], expected[0])
        assert rewards[1] == expected[1]
        assert info["k"].tolist() == [1, 1]


def test_ends_and_resets() -> None:
    env = ActionVectorEnv([lambda: CountingEnv(done_after=2), lambda: CountingEnv(max_steps=2)])
    env.reset(seed=0)
    action = np.zeros((2, 1), np.float32)
    env.step(action)
    _, rewards, terminated, truncated, info = env.step(action)
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([2, 2], [True, False], [False, True])
    assert info["success"].tolist() == [True, False]
    observations, rewards, _, _, info = env.step(action)
    assert (observations[:, 0].tolist(), rewards.tolist(), info["k"].tolist()) == ([0, 0], [0, 0], [0, 0])
