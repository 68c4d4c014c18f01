"""Chunks of actions on a counting environment: step t pays t + 1 and leads to state t + 1."""

import numpy as np
from counting_env import CountingEnv

from skild_ray.envs.chunk_env import ChunkVectorEnv


def test_actions_are_executed_one_after_the_other() -> None:
    first, second = CountingEnv(), CountingEnv()
    env = ChunkVectorEnv([lambda: first, lambda: second], 3)
    assert env.single_action_space.shape == (3,)
    env.reset(seed=0)
    for chunks in ([[0.1, 0.2, 2.0], [0.4, 0.5, 0.6]], [[-0.1, -0.2, -0.3], [0.0, 0.0, 0.0]]):
        observations, rewards, _, _, info = env.step(np.array(chunks, np.float32))
    np.testing.assert_allclose(np.concatenate(first.actions), [0.1, 0.2, 1.0, -0.1, -0.2, -0.3], rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(second.actions), [0.4, 0.5, 0.6, 0, 0, 0], rtol=1e-6)
    assert info["states"][:, :, 0].tolist() == [[3, 4, 5]] * 2
    assert info["step_rewards"].tolist() == [[4, 5, 6]] * 2
    assert observations[:, 0].tolist() == [6, 6]
    assert rewards.tolist() == [15, 15]


def test_an_end_within_a_chunk_drops_the_rest_of_it() -> None:
    ends, lasts = CountingEnv(done_after=2), CountingEnv()
    env = ChunkVectorEnv([lambda: ends, lambda: lasts], 3)
    env.reset(seed=0)
    observations, rewards, terminated, _, info = env.step(np.zeros((2, 3), np.float32))
    assert info["k"].tolist() == [2, 3]
    assert len(ends.actions) == 2
    assert terminated.tolist() == [True, False]
    assert rewards.tolist() == [3, 6]
    assert info["step_rewards"][0, :2].tolist() == [1, 2]
    assert info["states"][0, :2, 0].tolist() == [0, 1]
    assert observations[:, 0].tolist() == [2, 3]
    observations, _, _, _, info = env.step(np.zeros((2, 3), np.float32))
    assert info["k"].tolist() == [0, 3], "a reset, then the next chunk"
    assert observations[:, 0].tolist() == [0, 6]
