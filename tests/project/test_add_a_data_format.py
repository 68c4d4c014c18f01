"""The guide to data formats, followed to the letter."""

import re
import runpy
from pathlib import Path

import guides
import minari
import pytest
from typer.testing import CliRunner

from skild_ray.cli import app
from skild_ray.data import registry
from skild_ray.data.formats import load_dataset, load_rewarded_episodes
from skild_ray.envs import make_env
from skild_ray.errors import DataError

GUIDE = guides.read("add_a_data_format")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture
def folder(tmp_path: Path, minari_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's files, after its commands."""
    guides.write_files(GUIDE, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for program, *arguments in guides.commands(GUIDE):
        if program == "python":
            runpy.run_path(arguments[0])
        else:
            done = CliRunner().invoke(app, arguments, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    return tmp_path


def test_a_format_of_ones_own_package(folder: Path) -> None:
    assert minari.load_dataset("robot/play-v0").total_episodes == 20
    env = make_env("skild_ray/Maze-v0", {})
    data = load_dataset("json_lines:READER:play.jsonl", env)
    assert data.lengths.tolist() == [30] * 20
    assert data.fingerprint() == load_dataset("robot/play-v0", env).fingerprint()
    (episode,) = load_rewarded_episodes("json_lines:READER:demonstrations.jsonl", env, max_episodes=1, needed=False)
    assert len(episode.observations) == 31
    (folder / "play.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"play\.jsonl' cannot be read as a \.jsonl file .*: JSONDecodeError: "):
        load_dataset("json_lines:READER:play.jsonl")


def test_a_format_of_the_tree_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = re.findall(r"^ +(\"json_lines\": .*),$", GUIDE, re.MULTILINE)
    added = eval(f"{{{line}}}", {"json_lines": __import__("json_lines")})
    monkeypatch.setattr(registry, "READERS", registry.READERS | added)
    names = ("play.jsonl", "json_lines:play.jsonl", "json_lines:READER:play.jsonl")
    assert len({load_dataset(name).fingerprint() for name in names}) == 1
    assert load_dataset("robot/play-v0").num_episodes == 20, "the other formats are read as before"
    with pytest.raises(DataError, match=r"a data set is a Minari id .*, a \.jsonl file with an episode"):
        load_dataset("play.json")


def test_arrays_in_memory(folder: Path) -> None:
    runpy.run_path("in_memory.py")
    assert load_dataset("robot/arrays-v0").lengths.tolist() == [49, 149]
