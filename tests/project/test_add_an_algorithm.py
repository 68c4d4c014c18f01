"""The guide to algorithms, followed to the letter: its package is trained over actions and over skills."""

import csv
import math
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import guides
import numpy as np
import pytest
from pretrained import tiny_experiment

from skild_ray.algorithms.registry import ENTRY_POINTS, last_stage, spec_of
from skild_ray.config import Experiment, load_experiment, to_yaml
from skild_ray.errors import ConfigError
from skild_ray.evaluation.agent import load_agent
from skild_ray.evaluation.evaluate import evaluate_run
from skild_ray.report.run_page import write_report
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder

GUIDE = guides.read("add_an_algorithm")
SMALL = {
    "synchronous": True,
    "hidden": 32,
    "batch_size": 32,
    "n_step": 5,
    "learning_rate": 3e-3,
    "warmup_decisions": 100,
}
PLACES = {
    "awr": {"type": "awr", "total_env_steps": 1_500, **SMALL},
    "skill_awr": {"type": "my_awr.settings:OVER_SKILLS", "total_env_steps": 3_000, **SMALL},
}
"""By the name that the package registers, and by place."""
TRAIN = """
import sys
from skild_ray.config import load_experiment
from skild_ray.pipeline import Run

for file in sys.argv[1:]:
    Run(load_experiment(file)).train_all()
"""


def _install(folder: Path) -> None:
    """What pip notes of a package: its name and its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    note = folder / f"{project['name']}-{project['version']}.dist-info"
    note.mkdir()
    (note / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"][ENTRY_POINTS].items()]
    (note / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines, ""]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The guide's package, installed."""
    folder = tmp_path_factory.mktemp("guide")
    guides.write_files(GUIDE, folder)
    _install(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        yield folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Mapping[str, Experiment]:
    """Both experiments, trained where a worker process has to find the package, too."""
    experiments, files = {}, []
    for stage, algorithm in PLACES.items():
        rollout = {"num_env_runners": 1, "num_envs_per_env_runner": 4, "decisions_per_fragment": 16}
        experiment = tiny_experiment(
            folder / "runs",
            name=stage,
            skill_prior={"iterations": 20, "validation_interval": 10, "batch_size": 16},
            algorithm=algorithm,
            rollout=rollout,
        )
        files.append(folder / f"{stage}.yaml")
        files[-1].write_text(to_yaml(experiment))
        experiments[stage] = experiment
    (folder / "minari").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *map(str, files)],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, (folder, guides.REPOSITORY / "tests", guides.REPOSITORY))),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return experiments


@pytest.mark.parametrize("stage", PLACES)
def test_it_is_a_stage_like_any_other(trained: Mapping[str, Experiment], stage: str) -> None:
    experiment = trained[stage]
    artifact = open_artifact(run_folder(experiment), stage)
    inputs = {"skill_prior"} if stage == "skill_awr" else set()
    assert set(artifact.record["inputs"]) == inputs
    assert {path.name for path in run_folder(experiment).iterdir()} == {stage, ".work", *inputs}, "what it needs"
    assert set(artifact.record["data"]) == {"demonstrations"}
    facts, budget = artifact.facts, experiment.algorithm.total_env_steps
    assert budget - 300 < facts["env_steps"] <= budget
    assert facts["updates"] == pytest.approx((facts["decisions"] - 100) / 2, abs=32)
    assert (facts["env_steps"] == facts["decisions"]) == (stage == "awr"), "a skill lasts several steps"
    with (artifact.path / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    for name in ("critic_loss", "policy_loss", "weight", "success"):
        assert math.isfinite(float(last[name]))


@pytest.mark.parametrize("stage", PLACES)
def test_its_policy_acts_from_its_artifact_and_its_checkpoint(trained: Mapping[str, Experiment], stage: str) -> None:
    run = run_folder(trained[stage])
    (checkpoint,) = (run / ".work").glob(f"{stage}-*/checkpoint_*")
    states = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    actions = [load_agent(path).policy(deterministic=True, seed=0)(states) for path in (run, checkpoint)]
    np.testing.assert_array_equal(*actions)
    assert actions[0].shape == (5, 3 if stage == "skill_awr" else 1)


def test_it_learns(trained: Mapping[str, Experiment]) -> None:
    """To walk to the right, as the demonstrations do."""
    evaluation = evaluate_run(run_folder(trained["awr"]) / "awr", episodes=8, seed=3)
    assert evaluation.trained.deterministic.success_rate == 1


def test_evaluation_and_report(trained: Mapping[str, Experiment]) -> None:
    run = run_folder(trained["skill_awr"])
    evaluation = evaluate_run(run / "skill_awr", episodes=4, seed=3)
    assert evaluation.trained.deterministic.env_steps_trained > 2_500
    assert "initial" not in evaluation.policies
    page = write_report(run).read_text()
    assert "AWR over skills" in page
    assert "Advantage-weighted regression over skills" in page
    assert "Critic loss" in page


@pytest.mark.parametrize("type", ["awr", "skill_awr", "my_awr.settings:SPEC"])
def test_an_unknown_key_is_one_line(folder: Path, tmp_path: Path, type: str) -> None:
    base = to_yaml(tiny_experiment(tmp_path, algorithm={"type": type}))
    file = tmp_path / "line.yaml"
    file.write_text(base.replace("beta:", "bata:"))
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    assert str(caught.value) == f"{file}: unknown key 'algorithm.bata'; the nearest is 'algorithm.beta'"


def test_an_unknown_type_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown algorithm 'skil_awr'; the nearest is 'skill_awr'"):
        spec_of("skil_awr")


def test_every_command_begins(folder: Path) -> None:
    """The experiments of the guide's commands are valid, and end in these stages."""
    shutil.copytree(guides.REPOSITORY / "experiments", folder / "experiments", dirs_exist_ok=True)
    stages = []
    for program, command, file, *options in guides.commands(GUIDE):
        assert (program, command) == ("skild-ray", "pipeline")
        assert set(options[::2]) <= {"--set"}
        stages.append(last_stage(load_experiment(folder / file, options[1::2])))
    assert [(stage.name, stage.inputs) for stage in stages] == [("awr", ()), ("skill_awr", ("skill_prior",))]


def test_losses_by_hand(folder: Path) -> None:
    tests: Mapping[str, Any] = runpy.run_path(str(folder / "tests" / "test_awr.py"))
    tests["test_losses_by_hand"]()


def test_a_type_that_env_runners_would_take_for_another_algorithm(folder: Path) -> None:
    from my_awr.awr import AWRConfig

    config = AWRConfig().environment("line_world:LineEnv").demonstrations("a/b-v0")
    config.validate()
    with pytest.raises(ValueError, match="type is 'rlpd', which is another algorithm"):
        config.training(type="rlpd").validate()
