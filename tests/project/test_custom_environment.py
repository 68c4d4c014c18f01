"""The guide to environments of one's own, followed to the letter with a small budget."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_maze import EXPERIMENT, TRAINING

from skild_ray.runs.artifacts import open_artifact

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs" / "custom_environment.md").read_text()
PROGRAMS = {
    "pip": ("-m", "pip"),
    "python": (),
    "skild-ray": ("-m", "skild_ray.cli"),
}
SMALL = {
    "extends": "custom.yaml",
    **{name: EXPERIMENT[name] for name in ("skill", "demo_discriminator", "rollout", "progress", "evaluation")},
    "skill_prior": TRAINING,
    "skill_posterior": TRAINING,
    "algorithm": EXPERIMENT["algorithm"] | {"total_env_steps": 2_000},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's package, made by its commands, with a run of all stages."""
    folder = tmp_path_factory.mktemp("guide")
    for name, content in re.findall(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    (folder / "minari").mkdir()
    shutil.copy(REPOSITORY / "experiments" / "custom.yaml", folder)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    variables = {
        "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{REPOSITORY}",
        "MINARI_DATASETS_PATH": str(folder / "minari"),
        "OMP_NUM_THREADS": "1",
    }
    (commands,) = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        # The same without touching this Python's packages, and with less to do.
        here = {"-e": "--quiet --no-deps --no-build-isolation --target site", "custom.yaml": "small.yaml"}
        arguments = [word for argument in arguments for word in here.get(argument, argument).split()]
        done = subprocess.run(
            [sys.executable, *PROGRAMS[program], *arguments],
            cwd=folder,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
    return folder


def test_every_stage_is_made(folder: Path) -> None:
    for stage in ("skill_prior", "skill_posterior", "demo_discriminator", "demo_rl"):
        artifact = open_artifact(folder / "runs" / "custom", stage)
    assert open_artifact(folder / "runs" / "custom", "skill_prior").facts["observation_dim"] == 6
    assert artifact.facts["env_steps"] > 1_500
    assert artifact.facts["environment_rebuilds"] == artifact.facts["lost_runners"] == 0


def test_sub_tasks_are_evaluated_by_name(folder: Path) -> None:
    run = folder / "runs" / "custom"
    results = json.loads((run / "demo_rl" / "evaluation.json").read_text())
    assert [subtask["name"] for subtask in results["subtasks"]] == ["red", "green"]
    header, *_ = (run / "demo_rl" / "metrics.csv").read_text().splitlines()
    assert {"solved_1_red", "solved_2_green"} <= set(header.split(","))
    page = (run / "report.html").read_text()
    assert "my_robot/Buttons-v0" in page and "green" in page
