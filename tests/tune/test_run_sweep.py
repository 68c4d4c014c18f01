"""Sweeps that run: what trials share, how bad ones end, and what is left after a kill."""

import contextlib
import csv
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretrained import ALGORITHM, SKILL, publish_pretrained, tiny_experiment

from skild_ray.config import Experiment, load_experiment, to_yaml, with_values
from skild_ray.envs import make_env
from skild_ray.errors import ConfigError
from skild_ray.pipeline import Run
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder
from skild_ray.stages import SKILD_INPUTS
from skild_ray.tune.offline import offline_run, trial_folder
from skild_ray.tune.results import Outcome, show, write_best
from skild_ray.tune.run import run_sweep
from skild_ray.tune.sweep import Sweep, load_sweep
from skild_ray.tune.sweep_page import write_page

REPOSITORY = Path(__file__).parents[2]
SHORT = {"iterations": 4, "validation_interval": 4, "warmup_iterations": 1}
SMALL = {"rollout.num_env_runners": 0, "rollout.num_envs_per_env_runner": 4, "rollout.decisions_per_fragment": 16}
# What makes a trial of any of the shipped sweeps take seconds.
TINY: dict[str, Any] = {
    **{f"skill.{key}": value for key, value in SKILL.items()},
    **{f"{stage}.{key}": value for stage in SKILD_INPUTS for key, value in SHORT.items()},
    **{f"algorithm.{key}": value for key, value in ALGORITHM.items()},
    **SMALL,
    "algorithm.total_env_steps": 1_200,
    "progress.report_interval_s": 0.05,
}


def _played(expert: str, **env_kwargs: Any) -> list[dict[str, Any]]:
    return [{"generate": {"expert": expert, "episodes": 2, "env_kwargs": env_kwargs}}]


MAZE: dict[str, Any] = {
    "environment.kwargs": {"max_episode_steps": 100},
    "data.task_agnostic": _played("maze", task="random", max_episode_steps=2000),
    "data.demonstrations": _played("maze", max_episode_steps=2000),
}
KITCHEN: dict[str, Any] = {
    "environment.kwargs": {"task": "kbts", "observation": "qpos", "max_episode_steps": 60},
    "data.task_agnostic": _played("kitchen", task="play", max_episode_steps=400),
    "data.demonstrations": _played("kitchen", max_episode_steps=400),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "minari").mkdir()
    return folder


@pytest.fixture(autouse=True)
def minari(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))


@pytest.fixture
def shipped(folder: Path) -> Callable[..., Sweep]:
    """Loads one of the shipped sweeps with a tiny budget."""

    def load(name: str, task: dict[str, Any], **changes: Any) -> Sweep:
        overrides = TINY | task | {"runs": str(folder / "runs")} | changes
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        return load_sweep(REPOSITORY / "tune_configs" / f"{name}.yaml", texts)

    return load


def _with_skills(sweep: Sweep) -> Sweep:
    """The sweep, which finds its offline stages finished, with random weights: they take the most time."""
    experiment = offline_run(sweep.base, sweep.folder)
    with contextlib.closing(make_env(experiment.environment.id, experiment.environment.arguments)) as env:
        dimensions = [space.shape[0] for space in (env.observation_space, env.action_space) if space.shape]
    publish_pretrained(experiment, *dimensions, fingerprint=Run(experiment).fingerprint)
    return sweep


def _results(sweep: Sweep) -> dict[str, float]:
    """When each trial that has finished did so."""
    return {path.parent.name: path.stat().st_mtime for path in sweep.folder.glob("trials/*/result.json")}


def _scored(ranking: list[Outcome]) -> list[float]:
    return [outcome.score for outcome in ranking if not math.isnan(outcome.score)]


def test_a_killed_sweep_goes_on(folder: Path, ray_session: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Five trials on one set of offline artifacts, trained once; one diverges; what had finished stays as it was."""
    stages = dict.fromkeys(SKILD_INPUTS, SHORT)
    algorithm = {"total_env_steps": 800, "synchronous": True, "critic_norm": "none"}
    (folder / "line.yaml").write_text(to_yaml(tiny_experiment(folder / "runs", **stages, algorithm=algorithm)))
    rates = [1e-4, 2e-4, 3e-4, 1e30, 4e-4]
    content = {"name": "line", "experiment": "line.yaml", "space": {"algorithm.critic_lr": {"grid": rates}}}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    sweep = load_sweep(path)
    with pytest.raises(ConfigError, match="there is no sweep to resume"):
        run_sweep(sweep, resume=True)

    command = [sys.executable, "-m", "skild_ray.cli", "tune", os.fspath(path)]
    searched = os.pathsep.join((str(REPOSITORY / "tests"), str(REPOSITORY)))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": searched, "OMP_NUM_THREADS": "1"},
    )
    clock = threading.Event()
    while len(_results(sweep)) < 2:
        assert process.poll() is None, process.communicate()[0]
        clock.wait(0.05)
    process.kill()
    output = process.communicate()[0]
    assert output.count("skill_prior: done") == 1
    before = _results(sweep)

    with pytest.raises(ConfigError, match="holds a sweep; resume it with --resume"):
        run_sweep(sweep)
    with pytest.raises(ConfigError, match="was begun with another 'search_seed'"):
        run_sweep(load_sweep(path, ["search_seed=1"]), resume=True)
    ranking = run_sweep(sweep, resume=True)
    said = capsys.readouterr().out
    assert "skill_prior: done" not in said
    (offline,) = (sweep.folder / "offline").iterdir()
    after = _results(sweep)
    assert {name: after[name] for name in before} == before
    assert len(ranking) == 5
    assert {outcome.values["algorithm.critic_lr"] for outcome in ranking} == set(rates)
    assert [outcome.ended for outcome in ranking[:-1]] == ["finished"] * 4
    assert "critic_loss is not finite" in ranking[-1].ended
    assert ranking[-1].failed
    assert _scored(ranking)[:4] == sorted(_scored(ranking)[:4], reverse=True)
    hashes = {
        open_artifact(trial_folder(sweep.folder, name), "demo_rl").record["inputs"]["skill_prior"] for name in after
    }
    assert hashes == {open_artifact(offline, "skill_prior").model_hash}

    show(sweep, ranking)
    assert ranking[0].trial in capsys.readouterr().out
    page = write_page(sweep, ranking).read_text()
    assert "<svg" in page and ranking[0].trial in page and "http" not in page.replace("http://www.w3.org", "")
    best = write_best(sweep, ranking)
    assert best is not None
    _reproduces(load_experiment(best), offline, sweep, ranking[0])


def _reproduces(best: Experiment, offline: Path, sweep: Sweep, outcome: Outcome) -> None:
    """The best trial's experiment, run on its own with the trial's seed, trains the very same agent."""
    assert best.seed not in (outcome.values["seed"], sweep.base.seed)
    best = with_values(best, {"seed": outcome.values["seed"]})
    run_folder(best).mkdir()
    for stage in SKILD_INPUTS:
        (run_folder(best) / stage).symlink_to(offline / stage)
    messages: list[str] = []
    artifact = Run(best, messages.append).train_all()
    assert [message.split(",")[0] for message in messages[:3]] == [f"{stage}: up to date" for stage in SKILD_INPUTS]
    assert artifact.model_hash == open_artifact(trial_folder(sweep.folder, outcome.trial), "demo_rl").model_hash


def test_bad_trials_are_stopped_early(shipped: Callable[..., Sweep], ray_session: None) -> None:
    grace = {"scheduler.asha.grace_env_steps": 600, "scheduler.asha.reduction_factor": 2}
    ranking = run_sweep(_with_skills(shipped("maze_asha", MAZE, metric="episode_env_steps", samples=2, **grace)))
    assert len(_scored(ranking)) == 2
    assert "finished" in {outcome.ended for outcome in ranking} <= {"finished", "stopped early"}


def test_offline_stages_alone(shipped: Callable[..., Sweep], ray_session: None) -> None:
    space = {"skill_prior.kl_weight": {"grid": [0.1]}, "skill.latent_dim": {"grid": [2, 3]}}
    sweep = shipped("maze_skills", MAZE, space=space)
    ranking = run_sweep(sweep)
    assert _scored(ranking) == sorted(_scored(ranking))
    assert {outcome.values["skill.latent_dim"] for outcome in ranking if outcome.ended == "finished"} == {2, 3}
    smaller = next(outcome for outcome in ranking if outcome.values["skill.latent_dim"] == 2)
    assert [path.name for path in trial_folder(sweep.folder, smaller.trial).glob("skill_*")] == ["skill_prior"]


def test_optuna_proposes(shipped: Callable[..., Sweep], ray_session: None) -> None:
    ranking = run_sweep(_with_skills(shipped("kitchen_optuna", KITCHEN, samples=2, concurrent=1)))
    assert [outcome.ended for outcome in ranking] == ["finished"] * 2
    assert len({outcome.values["algorithm.alpha"] for outcome in ranking}) == 2


def test_a_population_takes_over_what_is_better(shipped: Callable[..., Sweep], ray_session: None) -> None:
    often = {"scheduler.pbt.interval_env_steps": 400, "scheduler.pbt.quantile": 0.5}
    sweep = _with_skills(shipped("kitchen_pbt", KITCHEN, samples=2, metric="episode_return", **often))
    ranking = run_sweep(sweep)
    assert len(_scored(ranking)) == 2
    drawn = [values["algorithm.alpha"] for values in sweep.configurations()]
    assert any(outcome.values["algorithm.alpha"] not in drawn for outcome in ranking)
    for outcome in ranking:
        with (trial_folder(sweep.folder, outcome.trial) / "demo_rl" / "metrics.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        assert float(last["alpha"]) == pytest.approx(outcome.values["algorithm.alpha"], rel=1e-5)
        solved = ["1_kettle", "2_bottom_burner", "3_top_burner", "4_slide_cabinet"]
        rates = [float(last[f"solved_{name}"]) for name in solved]
        assert rates == sorted(rates, reverse=True)
        assert sum(rates) == pytest.approx(float(last["subtasks_solved"]))
