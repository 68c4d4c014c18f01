"""Worlds: complete experiments by name, whose arguments can be overridden."""

import sys
from pathlib import Path

import pytest

from skild_ray.envs import make_env
from skild_ray.errors import ConfigError
from skild_ray.generation.collect import Request
from skild_ray.worlds import WORLDS
from skild_ray.worlds.named import load_expert, load_world_or_experiment, world_of


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_can_be_played(name: str) -> None:
    if ".ogbench." in WORLDS[name].entry_point:
        pytest.importorskip("ogbench", reason="the extra 'ogbench' is not installed")
    world = load_world_or_experiment(name)
    assert world.name == name
    for source in (world.data.task_agnostic["play"], world.data.demonstrations["scripted"]):
        assert source.generate is not None
        load_expert(source.generate.expert)
        Request.of(source.generate, world.environment, 0).make_env().close()


def test_overrides_and_files(tmp_path: Path) -> None:
    kitchen = load_world_or_experiment("kitchen", ["environment.kwargs.observation=qpos", "seed=3"])
    assert kitchen.environment.kwargs == {"observation": "qpos"} and kitchen.seed == 3
    assert WORLDS["kitchen"].experiment.environment.kwargs == {}
    with pytest.raises(ConfigError, match=r"kitchen: unknown key 'environment\.kwarg'; the nearest"):
        load_world_or_experiment("kitchen", ["environment.kwarg.observation=qpos"])
    with pytest.raises(
        ConfigError, match=r"'kitchn' is neither a world \(maze, kitchen, office, [^)]*\) nor an experiment file"
    ):
        load_world_or_experiment("kitchn")
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such experiment file"):
        load_world_or_experiment(str(tmp_path / "gone.yaml"))


def test_worlds_are_known_by_their_environments() -> None:
    assert world_of("FrankaKitchen-v1") is world_of("skild_ray/Kitchen-v0") is WORLDS["kitchen"]
    assert world_of("skild_ray/Maze-v0") is WORLDS["maze"]
    assert world_of("CartPole-v1") is None


def test_without_ogbench_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("skild_ray.worlds.ogbench.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ogbench", None)  # as if it were not there
    for make in (lambda: make_env("skild_ray/Scene-v0", {}), lambda: load_expert("ogbench")):
        with pytest.raises(ConfigError, match=r"OGBench is missing: pip install 'skild_ray\[ogbench\]'$"):
            make()
    make_env("skild_ray/Maze-v0", {})
