import re
import shutil
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from line_world import LineEnv, LineExpert
from minari.cli import app as minari_cli
from typer.testing import CliRunner

from skild_ray.config import Environment, Experiment, Generate, Source
from skild_ray.data.formats import load_dataset, metadata_of
from skild_ray.data.minari_store import MinariWriter, read_minari
from skild_ray.envs import make_env
from skild_ray.errors import ConfigError, DataError
from skild_ray.generation.collect import RECORDING_VERSION, Failure, Request, Spent, collect
from skild_ray.generation.describe import describe_dataset
from skild_ray.generation.generate import dataset_id, generate
from skild_ray.generation.sources import generate_named, load_sources

LINE = Environment(id="line_world:LineEnv")
pytestmark = pytest.mark.usefixtures("ray_session", "minari_root")


def walk(episodes: int = 12, **settings: Any) -> Generate:
    return Generate(expert="line_world:LineExpert", episodes=episodes, **settings)


def test_data_set_is_complete(minari_root: Path) -> None:
    reports: list[tuple[int, int]] = []
    name = generate(walk(), LINE, seed=0, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(done, 12) for done in range(1, 13)]
    dataset = minari.load_dataset(name)
    assert name in minari.list_local_datasets()
    assert dataset.observation_space == LineEnv().observation_space and dataset.action_space == LineEnv().action_space
    request = dataset.storage.metadata["skild_ray"]["request"]
    assert request == Request.of(walk(), LINE, 0).model_dump()
    for episode in dataset:
        length = len(episode.actions)
        assert episode.observations.shape == (length + 1, 2) and episode.observations.dtype == np.float32
        assert np.allclose(np.diff(episode.observations[:, 0]), 0.1 * episode.actions[:, 0], atol=1e-6)
        assert episode.rewards.tolist() == [0.0] * (length - 1) + [1.0]
        assert episode.terminations[-1] and not episode.truncations.any()
        assert episode.observations[-1, 0] >= episode.observations[-1, 1]


def test_content_does_not_depend_on_the_number_of_workers(minari_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment(id="line_world:LineEnv", kwargs={"hopeless": 0.3})
    fingerprints, seeds = set(), set()
    for workers in (1, 2):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(minari_root / str(workers)))
        name = generate(walk(40), environment, seed=3, workers=workers)
        fingerprints.add(load_dataset(name).fingerprint())
        seeds.add(tuple(int(m["seed"]) for m in minari.load_dataset(name).storage.get_episode_metadata(range(40))))
    assert len(fingerprints) == len(seeds) == 1


def test_failed_episodes_are_replaced_by_the_next_ones() -> None:
    environment = Environment(id="line_world:LineEnv", kwargs={"hopeless": 0.3})
    name = generate(walk(10), environment, seed=0)
    data = load_dataset(name)
    assert data.num_episodes == 10
    assert all(observations[-1, 0] > 0.4 for observations, _ in map(data.episode, range(10)))
    outcomes = collect(Request.of(walk(10), environment, 0), first=0, count=30)
    dropped = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    before_the_last = [failure for failure in dropped if failure.index - dropped.index(failure) < 10]
    assert before_the_last and {failure.env_steps for failure in dropped} == {40}
    assert Spent.of(metadata_of(name)) == Spent(len(data), 40 * len(before_the_last), len(before_the_last))
    assert f"{len(data) + 40 * len(before_the_last)} env steps" in dict(describe_dataset(name))["generated in"]


def test_an_equal_request_is_reused_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first = generate(walk(), LINE, seed=0)
    assert generate(walk(), LINE, seed=0, progress=lambda done, total: pytest.fail("generated again")) == first
    others = [
        dataset_id(walk(13), LINE, 0),
        dataset_id(walk(), LINE, 1),
        dataset_id(walk(action_noise=0.1), LINE, 0),
        dataset_id(walk(expert_kwargs={"slowest": 0.1}), LINE, 0),
        dataset_id(walk(env_kwargs={"max_episode_steps": 30}), LINE, 0),
        dataset_id(walk(), Environment(id="line_world:ConvertingLineEnv"), 0),
    ]
    assert len({first, *others}) == 7
    same = Environment(id="line_world:LineEnv", kwargs={"max_episode_steps": 30})
    assert dataset_id(walk(), same, 0) == others[4]
    assert dataset_id(walk(seed=1), LINE, 0) == others[1], "a seed of the source's own instead of the experiment's"
    monkeypatch.setattr(LineExpert, "version", 2, raising=False)
    assert dataset_id(walk(), LINE, 0) != first, "an expert that does something else now"


def test_named_data_sets(minari_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expert = {"expert": "line_world:LineExpert"}
    world = Experiment.model_validate(
        {
            "name": "line",
            "environment": {"id": "line_world:TaskLineEnv"},
            "data": {
                "task_agnostic": [{"generate": {**expert, "episodes": 5, "env_kwargs": {"task": "any"}}}],
                "demonstrations": [{"generate": {**expert, "episodes": 2, "action_noise": 0.1}}],
            },
        }
    )
    assert generate_named(world, None) == "line/play-v0"
    assert generate_named(world, ["left", "far right"], episodes=3) == "line/left-far-right-v0"
    assert generate_named(world, "far", name="line/mine-v1", action_noise=0.0) == "line/mine-v1"
    stored = {name: minari.load_dataset(f"line/{name}") for name in ("play-v0", "left-far-right-v0", "mine-v1")}
    assert [len(dataset) for dataset in stored.values()] == [5, 3, 2]
    requests = [dataset.storage.metadata["skild_ray"]["request"] for dataset in stored.values()]
    assert [request["env_kwargs"]["task"] for request in requests] == ["any", ["left", "far right"], "far"]
    assert [request["action_noise"] for request in requests] == [0.0, 0.1, 0.0]
    capsys.readouterr()
    assert generate_named(world, None) == "line/play-v0"
    assert not capsys.readouterr().out
    with pytest.raises(DataError, match=r"'line/play-v0' already, with other content: .* 'minari delete line/play-v0'"):
        generate_named(world.model_copy(update={"seed": 1}), None)
    storage = stored["play-v0"].storage
    facts = storage.metadata["skild_ray"]
    assert facts["request"].pop("recording") == RECORDING_VERSION
    storage.update_metadata({"skild_ray": facts})
    with pytest.raises(DataError, match="with other content"):  # from before executed actions were recorded
        generate_named(world, None)


def test_minari_describes_a_data_set() -> None:
    generate(walk(2, env_kwargs={"max_episode_steps": 30}, action_noise=0.25), LINE, seed=3, name="line/walk-v0")
    shown = CliRunner().invoke(minari_cli, ["show", "line/walk-v0"])
    assert shown.exit_code == 0
    text = " ".join(shown.output.split())
    assert "2 episodes of the scripted expert line_world:LineExpert in line_world:LineEnv with" in text
    assert "max_episode_steps=30, seed 3; noise of std 0.25 on the executed actions" in text
    assert re.search(r"It took \d+ env steps; no episode was dropped\.", text)
    assert "Sub-tasks: goal. The order of each episode is its metadata subtasks." in text
    assert "scripted expert line_world:LineExpert" in text


def test_seeds_give_different_data() -> None:
    assert (
        load_dataset(generate(walk(), LINE, 0)).fingerprint() != load_dataset(generate(walk(), LINE, 1)).fingerprint()
    )


def test_noise_is_on_the_executed_actions_only() -> None:
    clean, noisy = (
        collect(Request.of(walk(1, action_noise=noise), LINE, 0), first=0, count=1)[0] for noise in (0.0, 0.5)
    )
    shared = min(len(clean.actions), len(noisy.actions))
    assert np.array_equal(clean.actions[:shared], noisy.actions[:shared])
    moved = np.diff(noisy.observations[:, 0])
    assert not np.allclose(moved, 0.1 * noisy.actions[:, 0], atol=1e-3)
    assert np.allclose(moved, 0.1 * noisy.executed_actions[:, 0], atol=1e-6)
    assert np.abs(noisy.executed_actions).max() <= 1
    assert clean.executed_actions is None, "they are the same"


LIGHT = Environment(id="skild_ray/Kitchen-v0", kwargs={"task": ["light switch"], "observation": "qpos"})


@pytest.mark.parametrize(("environment", "noise"), [(Environment(id="skild_ray/Maze-v0"), 0.5), (LIGHT, 0.1)])
def test_executed_actions_lead_from_the_seed_to_the_stored_states(environment: Environment, noise: float) -> None:
    expert = "maze" if "Maze" in environment.id else "kitchen"
    name = generate(Generate(expert=expert, episodes=1, action_noise=noise), environment, seed=0)
    (episode,) = read_minari(name, rewards=True)
    env = make_env(environment.id, environment.kwargs)

    def play(actions: np.ndarray) -> list[np.ndarray]:
        states, over = [env.reset(seed=episode.seed)[0]], False
        for action in actions:
            if not over:
                state, _, terminated, truncated, _ = env.step(action)
                states.append(state)
                over = terminated or truncated
        return states

    assert np.array_equal(play(episode.executed_actions), episode.observations)
    intended = play(episode.actions)
    assert np.abs(intended[1] - episode.observations[1]).max() > 1e-3, "already in the first step"
    assert np.abs(intended[-1] - episode.observations[len(intended) - 1]).max() > 0.05


def test_long_episodes_are_kept_whole() -> None:
    slow = walk(1, expert_kwargs={"slowest": -0.995}, env_kwargs={"max_episode_steps": 100_000}, action_noise=0.1)
    (episode,) = collect(Request.of(slow, LINE, 0), first=3, count=1)
    assert len(episode.actions) > 2500
    assert len(episode.observations) == len(episode.actions) + 1 == len(episode.rewards) + 1
    moved = np.diff(episode.observations[:, 0])
    assert np.abs(moved - 0.1 * episode.actions[:, 0]).mean() < 0.01
    assert np.allclose(moved, 0.1 * episode.executed_actions[:, 0], atol=1e-4)


def test_an_expert_that_mostly_fails_is_an_error(minari_root: Path) -> None:
    environment = Environment(id="line_world:LineEnv", kwargs={"hopeless": 0.8})
    with pytest.raises(DataError, match=r"expert 'line_world:LineExpert' solved only \d+ of \d+ episodes"):
        generate(walk(30), environment, seed=0)
    assert not list(minari_root.rglob("*.hdf5"))


def test_an_environment_that_raises_names_episode_and_seed(minari_root: Path) -> None:
    environment = Environment(id="line_world:LineEnv", kwargs={"broken_above": 0.9})
    outcomes = collect(Request.of(walk(), environment, 0), first=0, count=50)
    first = next(outcome for outcome in outcomes if hasattr(outcome, "error"))
    with pytest.raises(DataError) as caught:
        generate(walk(50), environment, seed=0)
    assert f"episode {first.index} (seed {first.seed}) failed: RuntimeError: the line broke" in str(caught.value)
    assert not list(minari_root.rglob("*.hdf5"))


def test_values_that_are_not_finite_are_not_stored() -> None:
    environment = Environment(id="line_world:LineEnv", kwargs={"nan_above": 0.4, "max_episode_steps": 5})
    # Comparisons with NaN are false: the episode is not solved, and counts as a failure.
    with pytest.raises(DataError, match="solved only 0 of"):
        generate(walk(2, expert_kwargs={"slowest": 0.9}), environment, seed=0)


def test_wrong_names_are_configuration_errors() -> None:
    with pytest.raises(ConfigError, match="unknown expert 'nobody'"):
        generate(Generate(expert="nobody", episodes=1), LINE, seed=0)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'wrong'"):
        generate(walk(env_kwargs={"wrong": 1}), LINE, seed=0)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "minari"))
    with pytest.raises(DataError, match="MINARI_DATASETS_PATH") as caught:
        generate(walk(), LINE, seed=0)
    assert str(tmp_path / "file") in str(caught.value)


def test_a_full_disk_is_named_and_leaves_nothing(minari_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A write of HDF5's that really fails can crash the process long afterwards, so the writer asks beforehand.
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1_000_000, 1_000_000, 0))
        with pytest.raises(DataError, match="cannot write") as caught:
            generate(walk(60), LINE, seed=0)
    assert str(minari_root) in str(caught.value)
    assert not list(minari_root.rglob("*.hdf5"))
    assert load_dataset(generate(walk(60), LINE, seed=0)).num_episodes == 60


def test_an_interruption_leaves_nothing(minari_root: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(walk(60), LINE, seed=0, progress=interrupt)
    assert not minari.list_local_datasets() and not list(minari_root.rglob("*.hdf5"))


def test_of_two_writers_of_the_same_data_set_the_first_wins(minari_root: Path) -> None:
    env, request = LineEnv(), Request.of(walk(), LINE, 0)
    early, late = collect(request, first=0, count=2)
    with MinariWriter("line/walk-v0", env.observation_space, env.action_space, {}) as slow:
        slow.append([late])
        with MinariWriter("line/walk-v0", env.observation_space, env.action_space, {}) as fast:
            fast.append([early])
    assert np.array_equal(load_dataset("line/walk-v0").actions, early.actions)
    assert len(list(minari_root.rglob("*.hdf5"))) == 1


def test_load_sources(minari_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = generate(walk(6), LINE, seed=7)
    experiment = Experiment.model_validate(
        {
            "name": "line",
            "environment": LINE.model_dump(),
            "data": {
                "task_agnostic": {
                    "stored": {"dataset": stored, "max_episodes": 4},
                    "played": {"generate": walk(5).model_dump()},
                },
                "demonstrations": {"gone": {"dataset": "line/gone-v0"}},
            },
        }
    )
    sources = experiment.data.task_agnostic
    loaded = load_sources(sources, experiment, "task_agnostic", workers=2)
    assert [part.num_episodes for part in loaded] == [4, 5]
    assert "data.task_agnostic.played" in capsys.readouterr().out
    again = load_sources(sources, experiment, "task_agnostic")
    assert [part.fingerprint() for part in again] == [part.fingerprint() for part in loaded]
    assert not capsys.readouterr().out
    selected = Source(dataset=stored, select=["goal"], max_episodes=5)
    assert load_sources({"some": selected}, experiment, "demonstrations")[0].num_episodes == 5
    wrong = selected.model_copy(update={"select": ["gaol"]})
    with pytest.raises(
        DataError, match=r"^data\.demonstrations\.some: data set '.*': no episode solves exactly gaol; .*goal"
    ):
        load_sources({"some": wrong}, experiment, "demonstrations")
    with pytest.raises(DataError, match=r"data\.demonstrations\.gone: data set 'line/gone-v0' is not in"):
        load_sources(experiment.data.demonstrations, experiment, "demonstrations")


def test_maze_end_to_end() -> None:
    maze = Environment(id="skild_ray/Maze-v0")
    source = Generate(expert="maze", episodes=3, env_kwargs={"task": "random"}, action_noise=0.5)
    name = generate(source, maze, seed=0)
    assert name.startswith("skild/maze-")
    env = Request.of(source, maze, 0).make_env()
    data = load_dataset(name, env)
    assert (data.num_episodes, data.observation_dim, data.action_dim) == (3, 4, 2)
    recovered = minari.load_dataset(name).recover_environment()
    assert recovered.unwrapped.task == "random"
