"""Runs at a URI: copies on this node, mirrored."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from skild_ray.errors import SkildError
from skild_ray.runs import storage

RECORD = "record"


class UnreliableFileSystem(LocalFileSystem):
    """Folders `/...` whose connection breaks after some requests, in the middle of what is written then.

    As in an object store, a folder is copied or removed file by file, in no order that would be of help.
    """

    protocol = "unreliable"
    cachable = False
    requests_left: int | None = None

    def _request(self) -> None:
        kind = type(self)
        if kind.requests_left is not None:
            kind.requests_left -= 1
            if kind.requests_left < 0:
                raise OSError("connection reset")

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "r" in mode:
            self._request()
        elif self.requests_left == 0:
            Path(path).write_bytes(b"hal")
        if "w" in mode:
            self._request()
        return super()._open(path, mode, **kwargs)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        if self.requests_left == 0:
            Path(path2).write_bytes(b"hal")
        self._request()
        super().cp_file(path1, path2, **kwargs)

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        self._request()
        super().mv(path1, path2, **kwargs)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        for file in sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]:
            if file.is_file():
                self._request()
                file.unlink()
        super().rm(path, recursive, maxdepth) if Path(path).exists() else None

    def rm_file(self, path: str) -> None:
        self.rm(path)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._request()
        return super().info(path, **kwargs)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        self._request()
        return super().ls(path, detail, **kwargs)


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URI whose copies are made below the test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return f"file://{tmp_path}/there/runs"


@pytest.fixture
def unreliable(copies: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same place through a connection that breaks."""
    fsspec.register_implementation("unreliable", UnreliableFileSystem, clobber=True)
    monkeypatch.setattr(UnreliableFileSystem, "requests_left", None)
    return copies.replace("file://", "fsspec+unreliable://")


def _write(folder: Path, version: str) -> None:
    """A folder of two files whose record names their content."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "folder").mkdir(parents=True)
    for name in (RECORD, "weights", "folder/more"):
        (folder / name).write_text(version)


def _outdated(runs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of version 1 that was stored, before another node stored version 2."""
    stage = storage.local_folder(runs) / "maze" / "skill_prior"
    _write(stage, "1")
    storage.push(stage, RECORD)
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
        elsewhere = storage.local_folder(runs) / "maze" / "skill_prior"
        _write(elsewhere, "2")
        storage.push(elsewhere, RECORD)
    return stage


def _version(folder: Path) -> str | None:
    """Which version a folder is, None if it is absent or has no record."""
    return (folder / RECORD).read_text() if (folder / RECORD).exists() else None


def _intact(folder: Path) -> bool:
    names = ("weights", "folder/more")
    return all((folder / name).exists() and (folder / name).read_text() == _version(folder) for name in names)


def _fetch(folder: Path) -> str | None:
    storage.fetch(folder, RECORD, _intact)
    assert _version(folder) is None or _intact(folder)
    return _version(folder)


def _fetch_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str | None:
    """What another node gets, whose copy is empty."""
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        there = storage.uri(folder)
        assert there
        runs, name, stage = there.rsplit("/", 2)
        return _fetch(storage.local_folder(runs) / name / stage)


def _break_after(requests: int, action: Callable[[], object]) -> bool:
    """Let the connection break after that many requests; whether it did."""
    UnreliableFileSystem.requests_left = requests
    try:
        action()
    except SkildError as error:
        assert "cannot be reached" in str(error)
        return True
    finally:
        UnreliableFileSystem.requests_left = None
    return False


def test_a_mounted_folder_is_left_alone(tmp_path: Path) -> None:
    assert storage.local_folder(str(tmp_path)) == tmp_path
    _write(tmp_path / "stage", "1")
    storage.push(tmp_path / "stage", RECORD)
    storage.fetch(tmp_path / "stage", "another record", _intact)
    assert sorted(path.name for path in (tmp_path / "stage").iterdir()) == ["folder", RECORD, "weights"]
    assert storage.names(tmp_path) == []


def test_the_path_of_a_copy_tells_its_uri(copies: str) -> None:
    stage = storage.local_folder(copies) / "maze" / "skill_prior"
    assert storage.uri(stage) == f"{copies}/maze/skill_prior"
    assert storage.local_folder(copies + "/") == storage.local_folder(copies)


def test_another_node_gets_what_was_pushed(copies: str, tmp_path: Path) -> None:
    stage = storage.local_folder(copies) / "maze" / "skill_prior"
    _write(stage, "1")
    (stage / "old").touch()
    storage.push(stage, RECORD)
    shutil.rmtree(storage.local_folder(copies))
    assert _fetch(stage) == "1"
    assert (stage / "old").exists()

    _write(stage, "2")
    storage.push(stage, RECORD)
    there = tmp_path / "there" / "runs" / "maze"
    assert {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()} == {
        f"skill_prior/{name}" for name in (RECORD, "weights", "folder/more")
    }
    assert storage.names(stage.parent) == ["skill_prior"]

    storage.remove(stage, RECORD)
    assert not stage.exists()
    assert storage.names(stage.parent) == []


def test_what_another_node_has_stored_counts(copies: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stage = _outdated(copies, monkeypatch, tmp_path)
    assert _fetch(stage) == "2"


def test_a_damaged_copy_is_fetched_again(copies: str) -> None:
    stage = storage.local_folder(copies) / "maze" / "skill_prior"
    _write(stage, "1")
    storage.push(stage, RECORD)
    (stage / "weights").write_text("damaged")
    assert _fetch(stage) == "1"


@pytest.mark.parametrize("stored_before", [False, True])
def test_what_storage_lacks_is_stored(
    copies: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored_before: bool
) -> None:
    stage = storage.local_folder(copies) / "maze" / "skill_prior"
    _write(stage, "1")
    if stored_before:
        storage.push(stage, RECORD)
        shutil.rmtree(tmp_path / "there")
    assert _fetch(stage) == "1"
    assert _fetch_elsewhere(stage, monkeypatch, tmp_path) == "1"


@pytest.mark.parametrize("before", [None, "1"])
def test_a_push_that_breaks_off_leaves_a_whole_version(
    unreliable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str | None
) -> None:
    """Wherever it breaks off, another node gets the old or the new version, and the next start stores the new one."""
    stage, there = storage.local_folder(unreliable) / "maze" / "skill_prior", tmp_path / "there"
    seen, requests, broken = set(), 0, True
    while broken:
        shutil.rmtree(there, ignore_errors=True)
        if before:
            _write(stage, before)
            storage.push(stage, RECORD)
        _write(stage, "22")
        broken = _break_after(requests, lambda: storage.push(stage, RECORD))
        seen.add(_fetch_elsewhere(stage, monkeypatch, tmp_path))
        # The start after this one breaks off somewhere, too.
        for again in (5, 20):
            _break_after(again, lambda: storage.fetch(stage, RECORD, _intact))
            assert _version(stage) == "22" and _intact(stage)
            assert _fetch_elsewhere(stage, monkeypatch, tmp_path) in {before, "22"}
        assert _fetch(stage) == "22"
        assert _fetch_elsewhere(stage, monkeypatch, tmp_path) == "22"
        assert storage.names(stage.parent) == ["skill_prior"]
        assert sorted(path.name for path in (there / "runs" / "maze").iterdir()) == ["skill_prior"]
        requests += 1
    assert seen == {before, "22"}
    assert requests > 10


def test_a_fetch_that_breaks_off_loses_nothing(
    unreliable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = _outdated(unreliable, monkeypatch, tmp_path)
    requests = 0
    while _version(stage) == "1":
        _break_after(requests, lambda: storage.fetch(stage, RECORD, _intact))
        assert _intact(stage)
        requests += 1
    assert _version(stage) == "2" and requests > 5
    assert [path.name for path in stage.parent.iterdir()] == ["skill_prior"]


def test_a_removal_that_breaks_off_leaves_all_or_nothing(
    unreliable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = storage.local_folder(unreliable) / "maze" / "skill_prior"
    requests, broken = 0, True
    while broken:
        _write(stage, "1")
        storage.push(stage, RECORD)
        broken = _break_after(requests, lambda: storage.remove(stage, RECORD))
        assert _fetch_elsewhere(stage, monkeypatch, tmp_path) in {None, "1"}
        requests += 1
    assert storage.names(stage.parent) == []


def test_an_unreachable_uri_is_one_line(copies: str) -> None:
    storage.require(copies)
    for runs in ("file:///proc/runs", "nothing://bucket/runs"):
        with pytest.raises(SkildError, match=f"{runs}.*: cannot be reached") as caught:
            storage.require(runs)
        assert "\n" not in str(caught.value)
