"""The skill-level environment on a counting environment: step t pays t + 1 and leads to state t + 1."""

import numpy as np
import torch
from counting_env import CountingEnv
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray
from torch import Tensor

from skild_ray.envs.skill_env import SkillVectorEnv

HORIZON = 10


class TaskEnv(CountingEnv):
    """Credits a sub-task at steps 3 and 14."""

    subtasks = ("first", "second")

    def reset(self, **kwargs):  # type: ignore[no-untyped-def]
        observation, _ = super().reset(**kwargs)
        return observation, {"subtasks_solved": 0}

    def step(self, action):  # type: ignore[no-untyped-def]
        *outcome, _ = super().step(action)
        return *outcome, {"subtasks_solved": (self.steps >= 3) + (self.steps >= 14)}


class Decoder:
    """a = 2 * z - s_0 / 10, and a record of every call."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        self.inputs.append(inputs.clone())
        return 2 * inputs[:, 2:3] - inputs[:, :1] / 10


def _vector(*envs: CountingEnv, **kwargs: bool) -> tuple[SkillVectorEnv, Decoder]:
    decoder = Decoder()
    return SkillVectorEnv([lambda env=env: env for env in envs], decoder, 1, HORIZON, **kwargs), decoder


def _skills(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None]


def test_full_skill() -> None:
    env, _ = _vector(CountingEnv())
    observations, info = env.reset(seed=0)
    assert observations[0, 0] == 0
    assert info["k"].tolist() == [0]
    for expected_state, expected_reward in ((10, 55), (20, 155), (30, 255)):
        observations, rewards, terminated, truncated, info = env.step(_skills(0.0))
        assert (observations[0, 0], rewards[0], info["k"][0]) == (expected_state, expected_reward, HORIZON)
        assert not terminated[0]
        assert not truncated[0]


def test_time_limit_cuts_the_last_skill() -> None:
    env, _ = _vector(CountingEnv(max_steps=14))
    env.reset(seed=0)
    env.step(_skills(0.0))
    observations, rewards, terminated, truncated, info = env.step(_skills(0.0))
    assert (observations[0, 0], rewards[0], info["k"][0]) == (14, 11 + 12 + 13 + 14, 4)
    assert (terminated[0], truncated[0]) == (False, True)


def test_termination_inside_a_skill_stops_that_environment_only() -> None:
    short, long = CountingEnv(done_after=3), CountingEnv()
    env, _ = _vector(short, long)
    env.reset(seed=0)
    observations, rewards, terminated, truncated, info = env.step(_skills(0.0, 0.0))
    assert observations[:, 0].tolist() == [3, 10]
    assert rewards.tolist() == [6, 55]
    assert info["k"].tolist() == [3, 10]
    assert terminated.tolist() == [True, False]
    assert not truncated.any()
    assert info["success"].tolist() == [True, False], "without sub-tasks, terminating is success"
    assert len(short.actions) == 3


def test_finished_environments_are_reset_by_the_next_step() -> None:
    short, long = CountingEnv(done_after=3), CountingEnv()
    env, _ = _vector(short, long)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    env.step(_skills(0.0, 0.0))
    observations, rewards, terminated, truncated, info = env.step(_skills(0.7, 0.0))
    assert observations[:, 0].tolist() == [0, 20]
    assert rewards.tolist() == [0, 155]
    assert info["k"].tolist() == [0, 10]
    assert not (terminated | truncated).any()
    assert len(short.actions) == 3, "the action of a reset step is ignored"
    observations, _, _, _, info = env.step(_skills(0.0, 0.0))
    assert observations[:, 0].tolist() == [3, 30]
    assert info["k"].tolist() == [3, 10]


def test_without_autoreset_finished_environments_stay() -> None:
    short, long = CountingEnv(done_after=3), CountingEnv()
    env, decoder = _vector(short, long, autoreset=False)
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    env.reset(seed=0)
    env.step(_skills(0.0, 0.0))
    for _ in range(2):
        observations, rewards, terminated, _, info = env.step(_skills(0.0, 0.0))
        assert (observations[0, 0], rewards[0], info["k"][0], terminated[0]) == (3, 0, 0, False)
    assert long.steps == 30
    calls = len(decoder.inputs)
    env.reset(seed=0)
    assert short.steps == 0
    assert len(decoder.inputs) == calls


def test_one_decode_of_the_full_batch_a_step() -> None:
    env, decoder = _vector(CountingEnv(done_after=3), CountingEnv(), CountingEnv(max_steps=7))
    env.reset(seed=0)
    env.step(_skills(0.1, 0.2, 0.3))
    assert len(decoder.inputs) == HORIZON
    assert all(inputs.shape == (3, 3) for inputs in decoder.inputs)
    for step, inputs in enumerate(decoder.inputs):
        torch.testing.assert_close(inputs[:, 2], torch.tensor([0.1, 0.2, 0.3]))
        assert inputs[1, 0] == step, "closed loop: the state of this very step"


def test_no_decoding_once_all_have_ended() -> None:
    env, decoder = _vector(CountingEnv(done_after=3), CountingEnv(max_steps=5))
    env.reset(seed=0)
    env.step(_skills(0.0, 0.0))
    assert len(decoder.inputs) == 5


def test_actions_are_clipped() -> None:
    low = CountingEnv()
    env, _ = _vector(low)
    env.reset(seed=0)
    env.step(_skills(0.75))
    np.testing.assert_allclose(np.concatenate(low.actions), np.clip(1.5 - np.arange(10) / 10, -1, 1), rtol=1e-5)


def test_returned_arrays_are_not_overwritten() -> None:
    env, _ = _vector(CountingEnv())
    start, _ = env.reset(seed=0)
    first, rewards, *_ = env.step(_skills(0.0))
    env.step(_skills(0.0))
    assert (start[0, 0], first[0, 0], rewards[0]) == (0, 10, 55)


def test_one_seed_gives_each_environment_its_own() -> None:
    envs = [CountingEnv() for _ in range(3)]
    env, _ = _vector(*envs)
    env.reset(seed=5)
    env.reset(seed=5)
    env.reset(seed=6)
    env.reset(seed=[1, 2, 3])
    env.reset()
    seeds = np.array([low.seeds for low in envs], dtype=object)
    assert len(set(seeds[:, 0])) == 3
    assert (seeds[:, 0] == seeds[:, 1]).all()
    assert (seeds[:, 0] != seeds[:, 2]).all()
    assert seeds[:, 3].tolist() == [1, 2, 3]
    assert seeds[:, 4].tolist() == [None] * 3


def test_subtasks_and_success() -> None:
    env, _ = _vector(TaskEnv(max_steps=20))
    assert env.subtasks == ("first", "second")
    _, info = env.reset(seed=0)
    assert (info["subtasks_solved"][0], info["success"][0]) == (0, False)
    *_, info = env.step(_skills(0.0))
    assert (info["subtasks_solved"][0], info["success"][0]) == (1, False)
    *_, info = env.step(_skills(0.0))
    assert (info["subtasks_solved"][0], info["success"][0]) == (2, True), "solved, though a time limit ended it"
    *_, info = env.step(_skills(0.0))
    assert (info["subtasks_solved"][0], info["success"][0]) == (0, False)


def test_subtasks_are_found_below_wrappers() -> None:
    env, _ = _vector(TimeLimit(TaskEnv(), 100))  # type: ignore[arg-type]
    assert env.subtasks == ("first", "second")


def test_info_is_masked_as_gymnasium_does() -> None:
    env, _ = _vector(CountingEnv(), CountingEnv())
    _, info = env.reset(seed=0)
    for key in ("k", "subtasks_solved", "success"):
        assert info[f"_{key}"].tolist() == [True, True]
        assert len(info[key]) == 2


def test_spaces_and_closing() -> None:
    envs = [CountingEnv(), CountingEnv()]
    env, _ = _vector(*envs)
    assert env.num_envs == 2
    assert env.single_action_space.shape == (1,)
    assert env.action_space.shape == (2, 1)
    assert env.observation_space.shape == (2, 2)
    env.close()
    assert all(low.closed for low in envs)
