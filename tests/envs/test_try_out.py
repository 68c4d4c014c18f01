"""What the trial finds out about an environment before anything is started, and what is noticed while it runs."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from odd_env import FAULTS, STARTS, OddEnv

from skild_ray.envs import make_env
from skild_ray.envs.action_env import ActionVectorEnv
from skild_ray.envs.conventions import ENDLESS, episode_limit
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.envs.try_out import STEPS, try_out
from skild_ray.errors import EnvironmentFault, SkildError

ID = "odd_env:OddEnv"
MESSAGES = {
    "reward in an array": r"its reward is an array of shape \(1,\), not a number",
    "reward None": "its reward is None, not a number",
    "reward complex": "its reward is a complex, not a number",
    "reward nan": r"reward nan in step 3 of an episode with random actions \(seed 0\)",
    "reward infinite": "reward -inf in step 3 of an episode",
    "observation nan": "observation nan in column 1 in step 3 of an episode",
    "observation beyond float32": "observation inf in column 0 in step 3 of an episode",
    "observation in a row": r"an observation has shape \(1, 2\), its space says \(2,\)",
    "observation a dictionary": r"an observation is a dict, not \(2,\) numbers",
    "observation ragged": r"an observation is a list, not \(2,\) numbers",
    "observation text": r"an observation is an array of shape \(2,\) and type <U1, not \(2,\) numbers",
    "terminated None": "its 'terminated' is None, not true or false",
    "truncated in an array": r"its 'truncated' is an array of shape \(1,\), not true or false",
    "truncated a text": "its 'truncated' is 'no', not true or false",
    "info None": r"the info of step\(\) is None, not a dictionary",
    "info a list": r"the info of step\(\) is a list, not a dictionary",
    "old step": r"step\(\) must return \(observation, .*, info\), and returns 4 values; old Gym's API is another",
    "no tuple": r"step\(\) must return .*, and returns a list",
    "solved a fraction": r"info\['subtasks_solved'\] must be a whole number from 0 to 2, and is 0.5 in step 3",
    "solved in an array": r"info\['subtasks_solved'\] must be a whole number from 0 to 2, and is array",
    "solved too many": r"info\['subtasks_solved'\] must be a whole number from 0 to 2, and is 3 in step 3",
    "solved missing": r"names sub-tasks, but info\['subtasks_solved'\], .*, is missing in its steps",
    "raises": "'odd_env:OddEnv' fails: ZeroDivisionError: division by zero",
    "old reset": r"reset\(\) must return \(observation, info\), and returns an array of shape \(2,\); old Gym",
    "reset with three": r"reset\(\) must return \(observation, info\), and returns a tuple",
    "reset without info": r"the info of reset\(\) is None, not a dictionary",
    "reset nan": r"observation nan in column 0 after reset\(\)",
}


@pytest.mark.parametrize("fault", [*FAULTS, *STARTS])
def test_a_wrong_answer_is_one_line(fault: str) -> None:
    with pytest.raises(SkildError, match=MESSAGES[fault]) as caught:
        try_out(make_env(ID, {"fault": fault, "at": 3}), ID)
    assert "\n" not in str(caught.value) and ID in str(caught.value)


@pytest.mark.parametrize("names", ["top", [1, 2], 7, np.array(["a", "b"])])
def test_names_of_sub_tasks(names: Any) -> None:
    with pytest.raises(SkildError, match="its 'subtasks' must be a list or tuple of names, and are"):
        try_out(OddEnv(names=names), ID)


class Second(OddEnv):
    """Fails in the second episode."""

    episodes = 0

    def reset(self, **kwargs):  # type: ignore[no-untyped-def]
        self.episodes += 1
        self.fault = "reward nan" if self.episodes == 2 else None
        return super().reset(**kwargs)


class Seeded(OddEnv):
    """As of old: `reset` without a seed."""

    def reset(self):  # type: ignore[no-untyped-def, override]
        return super().reset()


def test_a_second_episode_is_begun() -> None:
    with pytest.raises(SkildError, match=r"reward nan in step 3 of an episode with random actions \(seed 1\)"):
        try_out(Second(at=3), ID)
    with pytest.raises(SkildError, match=r"fails: TypeError: .*unexpected keyword argument 'seed'"):
        try_out(Seeded(), ID)


def test_what_is_as_it_should_be_passes() -> None:
    try_out(OddEnv(), ID)
    try_out(OddEnv(names=()), ID)
    try_out(OddEnv(names=[]), ID)
    try_out(OddEnv(length=3), ID)
    try_out(make_env("MountainCarContinuous-v0", {}), "MountainCarContinuous-v0")


def test_an_episode_that_does_not_end_is_told_with_the_remedy() -> None:
    with pytest.raises(SkildError, match=r"no limit .* not ended after 1,000 steps; set environment.kwargs.max_ep"):
        try_out(make_env(ID, {"length": None}), ID)
    limited = make_env(ID, {"length": None, "max_episode_steps": 5_000})
    try_out(limited, ID)
    assert limited.unwrapped.steps == STEPS, "a limit is believed"  # type: ignore[attr-defined]
    try_out(OddEnv(length=1_000), ID)


def test_announced_limits() -> None:
    assert episode_limit(OddEnv()) is None
    assert episode_limit(make_env(ID, {"max_episode_steps": 7})) == 7
    assert episode_limit(make_env("MountainCarContinuous-v0", {})) == 999
    assert episode_limit(make_env("skild_ray/Maze-v0", {"max_episode_steps": 30})) == 30
    shorter = gym.wrappers.TimeLimit(make_env("skild_ray/Maze-v0", {}), 12)
    assert episode_limit(gym.wrappers.RecordEpisodeStatistics(shorter)) == 12


RUNNING = {
    "reward in an array": "ValueError|TypeError",
    "reward nan": "reward nan",
    "reward infinite": "reward -inf",
    "observation nan": "observation nan in column 1",
    "observation a dictionary": "TypeError",
    "info None": "AttributeError",
    "old step": "ValueError: not enough values to unpack",
    "raises": "ZeroDivisionError: division by zero",
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("fault", RUNNING)
def test_what_comes_later_names_environment_step_and_seed(fault: str) -> None:
    envs = [OddEnv(), OddEnv(fault, at=14)]
    skills = SkillVectorEnv([lambda env=env: env for env in envs], lambda inputs: inputs[:, :1] * 0, 3, 5)
    actions = ActionVectorEnv([lambda env=env: env for env in envs])
    for env in (skills, actions):
        env.reset(seed=[10, 11])
        with pytest.raises(EnvironmentFault) as caught:
            for _ in range(20):
                env.step(np.zeros(env.action_space.shape, np.float32))
        said = str(caught.value)
        assert "\n" not in said
        assert said.startswith("environment 'odd_env:OddEnv': ") and "in step 14 of an episode (seed 11)" in said
        assert any(text in said for text in RUNNING[fault].split("|"))
        assert envs[1].steps == 14, "no further step is made of it"


@pytest.mark.parametrize("fault", ["reset nan", "old reset"])
def test_resets_are_watched_too(fault: str) -> None:
    env = ActionVectorEnv([lambda: OddEnv(fault)])
    with pytest.raises(EnvironmentFault, match=r"'odd_env:OddEnv': .* in reset\(\) \(seed 5\)"):
        env.reset(seed=[5])


def test_an_endless_episode_is_ended() -> None:
    env = SkillVectorEnv([lambda: OddEnv(length=None)] * 2, lambda inputs: inputs[:, :1] * 0, 3, 1_000)
    env.reset(seed=0)
    skill = np.zeros((2, 3), np.float32)
    for _ in range(ENDLESS // 1_000):
        env.step(skill)
    with pytest.raises(EnvironmentFault, match=r"not ended after 11,000 steps; set environment.kwargs.max"):
        env.step(skill)
    env.reset(seed=0)
    env.step(skill)


def test_an_announced_limit_may_be_longer() -> None:
    limit = 2 * ENDLESS
    env = SkillVectorEnv(
        [lambda: make_env(ID, {"length": None, "max_episode_steps": limit})], lambda inputs: inputs[:, :1] * 0, 3, limit
    )
    env.reset(seed=0)
    *_, truncated, info = env.step(np.zeros((1, 3), np.float32))
    assert truncated.all() and info["k"] == limit
