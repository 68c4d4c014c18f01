"""Runs at a URI: copies on this node, mirrored."""

import shutil
from pathlib import Path

import pytest

from skild_ray import storage
from skild_ray.errors import SkildError


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URI whose copies are made below the test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return f"file://{tmp_path}/there/runs"


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


def test_a_mounted_folder_is_left_alone(tmp_path: Path) -> None:
    assert storage.local_folder(str(tmp_path)) == tmp_path
    _write(tmp_path / "stage", record="1")
    storage.push(tmp_path / "stage")
    storage.fetch(tmp_path / "stage", "another record")
    assert (tmp_path / "stage" / "record").exists()
    assert storage.names(tmp_path) == []


def test_the_path_of_a_copy_tells_its_uri(copies: str) -> None:
    stage = storage.local_folder(copies) / "maze" / "skill_prior"
    assert storage.uri(stage) == f"{copies}/maze/skill_prior"
    assert storage.local_folder(copies + "/") == storage.local_folder(copies)


def test_another_node_gets_what_was_pushed(copies: str, tmp_path: Path) -> None:
    stage = storage.local_folder(copies) / "maze" / "skill_prior"
    _write(stage, record="1", old="x")
    _write(stage / "folder", weights="w")
    storage.push(stage)
    shutil.rmtree(storage.local_folder(copies))
    storage.fetch(stage, "record")
    assert (stage / "folder" / "weights").read_text() == "w"

    (stage / "old").unlink()
    _write(stage, record="2")
    storage.push(stage)
    assert not (tmp_path / "there" / "runs" / "maze" / "skill_prior" / "old").exists()
    _write(stage, record="3")
    storage.fetch(stage, "record")
    assert (stage / "record").read_text() == "2", "what is stored counts"
    assert storage.names(stage.parent) == ["skill_prior"]

    storage.remove(stage)
    assert not stage.exists()
    assert storage.names(stage.parent) == []


def test_what_is_not_stored_is_not_there(copies: str) -> None:
    stage = storage.local_folder(copies) / "maze" / "skill_prior"
    _write(stage, record="1")
    storage.fetch(stage, "record")
    assert not stage.exists()


def test_an_unreachable_uri_is_one_line(copies: str) -> None:
    storage.require(copies)
    for runs in ("file:///proc/runs", "nothing://bucket/runs"):
        with pytest.raises(SkildError, match=f"{runs}.*: cannot be reached") as caught:
            storage.require(runs)
        assert "\n" not in str(caught.value)
