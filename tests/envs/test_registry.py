"""Environments by name, of ours and of other packages, and the errors of wrong names."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from line_world import LineEnv

from skild_ray.envs import make_env
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.errors import ConfigError
from skild_ray.worlds.maze.environment import MazeEnv


def not_an_environment() -> str:
    return "nothing"


def broken() -> gym.Env:
    raise RuntimeError("no\n  simulator")


class Blurred(gym.ObservationWrapper):
    """Its observations are dictionaries."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.observation_space = gym.spaces.Dict({"line": env.observation_space})


class Tasked(gym.Wrapper):
    """Somebody else's environment with sub-tasks added."""

    subtasks = ("top",)

    def step(self, action):  # type: ignore[no-untyped-def]
        *outcome, info = self.env.step(action)
        return *outcome, info | {"subtasks_solved": 1}


def dictionaries() -> gym.Env:
    return Blurred(LineEnv())


def test_makes_ours_bare_with_their_own_step_limit() -> None:
    env = make_env("skild_ray/Maze-v0", {"max_episode_steps": 2500})
    assert type(env) is MazeEnv
    assert env.max_episode_steps == 2500


def test_gymnasium_makes_ours_bare() -> None:
    assert type(gym.make("skild_ray/Maze-v0")) is MazeEnv


def test_makes_from_module_and_attribute() -> None:
    env = make_env("skild_ray.worlds.maze.environment:MazeEnv", {"task": "random"})
    assert type(env) is MazeEnv
    assert env.task == "random"


def test_makes_registered_ids_of_other_modules() -> None:
    assert type(make_env("skild_ray.envs:skild_ray/Maze-v0", {})) is MazeEnv


def test_others_are_limited_by_gymnasium() -> None:
    for id in ("MountainCarContinuous-v0", "gymnasium.envs.classic_control:Continuous_MountainCarEnv"):
        env = make_env(id, {"max_episode_steps": 2})
        assert isinstance(env, gym.wrappers.TimeLimit) and env.env is env.unwrapped, "nothing else wrapped around it"
        env.reset(seed=0)
        assert [env.step(np.zeros(1, np.float32))[3] for _ in range(2)] == [False, True]


def test_installed_packages_register_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "lines-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: lines\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[gymnasium.envs]\nlines = lines:register\nbroken = lines:gone\n")
    (tmp_path / "lines.py").write_text(
        "import gymnasium\ndef register():\n    gymnasium.register('lines/Line-v0', 'line_world:LineEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert type(make_env("lines/Line-v0", {"max_episode_steps": 7})) is LineEnv
        with pytest.raises(ConfigError, match="'lines/Lime-v0' is not registered; the nearest is 'lines/Line-v0'"):
            make_env("lines/Lime-v0", {})
        with pytest.raises(ConfigError, match="'broken/Line-v0': entry point 'lines:gone': module 'lines' has no"):
            make_env("broken/Line-v0", {})
    finally:
        gym.registry.pop("lines/Line-v0", None)
        sys.modules.pop("lines", None)


def test_wrappers_may_have_the_sub_tasks() -> None:
    car = make_env("MountainCarContinuous-v0", {})
    env = SkillVectorEnv([lambda: Tasked(car)], lambda inputs: inputs[:, :1], latent_dim=1, horizon=2)
    assert env.subtasks == ("top",)
    env.reset(seed=0)
    assert env.step(np.zeros((1, 1), np.float32))[4]["success"].tolist() == [True]


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("skild_ray/Mase-v0", {}, "'skild_ray/Mase-v0' is not registered; the nearest is 'skild_ray/Maze-v0'"),
        ("Kitchen-v0", {}, "the nearest is 'skild_ray/Kitchen-v0'"),
        ("no_such/Env-v0", {}, "is not registered; install the package whose entry point 'gymnasium.envs' does that"),
        ("no_such_module:Env", {}, "cannot import 'no_such_module': .*; install its package, on every node, or put"),
        ("line_world.gone:Env", {}, "cannot import 'line_world.gone': No module named .* is not a package$"),
        (
            "skild_ray.worlds.maze.environment:NoEnv",
            {},
            "module 'skild_ray.worlds.maze.environment' has no callable 'NoEnv'",
        ),
        ("skild_ray/Maze-v0", {"tusk": 1}, "'skild_ray/Maze-v0': .*unexpected keyword argument 'tusk'"),
        ("skild_ray/Maze-v0", {"task": "x"}, "unknown maze task 'x'"),
        (f"{__name__}:not_an_environment", {}, "is a str, not a gymnasium.Env"),
        (f"{__name__}:broken", {}, "no simulator"),
        (f"{__name__}:dictionaries", {}, r"observations are Dict.*, not a vector; choose some with .*: \[line\]"),
        ("CartPole-v1", {}, r"actions are Discrete\(2\), not a vector"),
        ("Pendulum-v1", {}, r"actions are Box\(-2.*not in \[-1, 1\]; environment.actions: "),
    ],
)
def test_errors_are_one_line_that_names_the_environment(id: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_env(id, kwargs)
    assert "\n" not in str(error.value)
    assert id in str(error.value)
