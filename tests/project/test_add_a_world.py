"""The guide to worlds, followed in a copy of the package. Its pipeline ends where the data are made and loaded.

What comes then is the same in every environment, see `test_custom_environment.py`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import guides
import pytest

GUIDE = guides.read("add_a_world")
ENTRY = re.compile(r"^# in skild_ray/worlds/__init__.py\n.*?(^    World\(.*?^    \),\n)", re.DOTALL | re.MULTILINE)


def run(folder: Path, *arguments: str) -> str:
    """What a program of this Python says, in the copy."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(folder), "MINARI_DATASETS_PATH": str(folder / "minari"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the guide's world."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(guides.REPOSITORY / "skild_ray", folder / "skild_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "minari").mkdir()
    guides.write_files(GUIDE, folder)
    shutil.copy(guides.REPOSITORY / "tests/worlds/test_worlds.py", folder / "tests/worlds")
    (entry,) = ENTRY.findall(GUIDE)
    path = folder / "skild_ray/worlds/__init__.py"
    before, after = path.read_text().split("\n)\n\nEXPERTS = ")
    path.write_text(f"{before}\n{entry})\n\nEXPERTS = {after}")
    experiment = folder / "experiments/reach.yaml"
    experiment.write_text(experiment.read_text().replace("episodes: 1000", "episodes: 20"))
    return folder


def test_the_worlds_tests_pass(folder: Path) -> None:
    said = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/worlds", "-k", "not overrides_and_files")
    assert "passed" in said and "[reach]" in run(folder, "-m", "pytest", "--collect-only", "-q", "tests/worlds")


def test_every_command_works(folder: Path) -> None:
    said = ""
    for program, *arguments in guides.commands(GUIDE):
        assert program == "skild-ray"
        here = ["data", "generate", *arguments[1:]] if arguments[0] == "pipeline" else arguments
        said += run(folder, "-m", "skild_ray.cli", *here)
    assert "reach/play-v0 is ready" in said and "generated in" in said
    assert "data.task_agnostic.play: 20 episodes" in said and "data.demonstrations.scripted: 10 episodes" in said
