"""Environments by name, and the errors of wrong names."""

import gymnasium as gym
import numpy as np
import pytest

from skild_ray.envs import make_env
from skild_ray.envs.maze import MazeEnv
from skild_ray.errors import ConfigError


def not_an_environment() -> str:
    return "nothing"


def broken() -> gym.Env:
    raise RuntimeError("no\n  simulator")


def test_makes_ours_bare_with_their_own_step_limit() -> None:
    env = make_env("skild_ray/Maze-v0", {"max_episode_steps": 2500})
    assert type(env) is MazeEnv
    assert env.max_episode_steps == 2500


def test_gymnasium_makes_ours_bare() -> None:
    assert type(gym.make("skild_ray/Maze-v0")) is MazeEnv


def test_makes_from_module_and_attribute() -> None:
    env = make_env("skild_ray.envs.maze:MazeEnv", {"task": "random"})
    assert type(env) is MazeEnv
    assert env.task == "random"


def test_makes_registered_ids_of_other_modules() -> None:
    assert type(make_env("skild_ray.envs:skild_ray/Maze-v0", {})) is MazeEnv


def test_others_are_limited_by_gymnasium() -> None:
    env = make_env("Pendulum-v1", {"max_episode_steps": 2})
    assert isinstance(env, gym.wrappers.TimeLimit)
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("skild_ray/Mase-v0", {}, "'skild_ray/Mase-v0' is not registered; the nearest is 'skild_ray/Maze-v0'"),
        ("Kitchen-v0", {}, "the nearest is 'skild_ray/Kitchen-v0'"),
        ("no_such_module:Env", {}, "cannot import 'no_such_module'"),
        ("skild_ray.envs.maze:NoEnv", {}, "module 'skild_ray.envs.maze' has no callable 'NoEnv'"),
        ("skild_ray/Maze-v0", {"tusk": 1}, "'skild_ray/Maze-v0': .*unexpected keyword argument 'tusk'"),
        ("skild_ray/Maze-v0", {"task": "x"}, "unknown maze task 'x'"),
        (f"{__name__}:not_an_environment", {}, "is a str, not a gymnasium.Env"),
        (f"{__name__}:broken", {}, "no simulator"),
    ],
)
def test_errors_are_one_line_that_names_the_environment(id: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_env(id, kwargs)
    assert "\n" not in str(error.value)
    assert id in str(error.value)
