"""Runs on storage that is not mounted: worked on in a local copy, which is mirrored to a URI.

Whatever pyarrow's `FileSystem.from_uri` opens will do: s3://bucket/runs, gs://..., hdfs://..., file:///...,
fsspec+NAME://... . The path of a copy tells its URI, so every node of a cluster finds what it lacks by the path alone.
Functions do nothing for paths that are no such copies.

A folder has a record, a file with the hashes of the others, and is stored complete or not at all, whenever a transfer
breaks off. Object stores cannot rename a folder, so the order of the transfers decides: the record is written last and
removed first, and a folder without one is not there. A new version is written beside the old one, as `.NAME.draft`,
and counts from the moment it is complete.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from skild_ray.errors import SkildError, one_line

_SEPARATOR = quote("://", safe="")
_STORED = ".stored"
"""Marks a copy that is what is stored, or was until another version took its place there."""


def local_folder(runs: str) -> Path:
    """The folder `runs` itself, or the place of its copy on this node if it is a URI."""
    if "://" not in runs:
        return Path(runs)
    return Path(tempfile.gettempdir()) / f"skild_ray-{os.getuid()}" / quote(runs.rstrip("/"), safe="")


def uri(path: Path) -> str | None:
    """Where a path inside a copy belongs."""
    for index, part in enumerate(path.parts):
        if _SEPARATOR in part:
            return "/".join((unquote(part), *path.parts[index + 1 :]))
    return None


def require(runs: str) -> None:
    """Raise SkildError if `runs` is a URI where nothing can be written."""
    folder = local_folder(runs)
    if uri(folder) is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    push(probe)


def push(path: Path, record: str | None = None) -> None:
    """Copy a file, or a folder with its `record`, to where it belongs, in place of what is there.

    What is there stays complete until the new version is.

    Raises:
        SkildError: that is not possible; the next push removes what this one has left behind.
    """
    if target := _open(path):
        filesystem, there = target
        with _reaching(path):
            if record is None:
                _upload(filesystem, path, there)
                return
            _finish_replacing(filesystem, there, record)
            stored = _read(filesystem, f"{there}/{record}")
            if stored is None:
                _upload_folder(filesystem, path, there, record)
            elif stored != (path / record).read_bytes():
                _upload_folder(filesystem, path, _draft(there), record)
                _finish_replacing(filesystem, there, record)
            (path / _STORED).touch()


def fetch(folder: Path, record: str, intact: Callable[[Path], bool]) -> None:
    """Make a folder what it is where it belongs; one that was never stored is pushed instead.

    A folder that is intact is replaced by another version only, and never removed.

    Args:
        folder: to be compared by its record.
        record: name of the file with the hashes of the others.
        intact: whether a folder agrees with its record.

    Raises:
        SkildError: the storage cannot be reached.
    """
    if source := _open(folder):
        filesystem, there = source
        have = (folder / record).exists() and intact(folder)
        if have and not (folder / _STORED).exists():
            push(folder, record)
            return
        with _reaching(folder):
            place = _complete(filesystem, there, record)
            stored = _read(filesystem, f"{place}/{record}")
            if stored is None:
                if have:
                    push(folder, record)
                return
            if have and (folder / record).read_bytes() == stored:
                return
            with _download(filesystem, place, folder) as draft:
                if have and not intact(draft):
                    return
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # another process was faster
                    draft.rename(folder)


def names(folder: Path) -> list[str]:
    """What a folder holds where it belongs."""
    if source := _open(folder):
        filesystem, there = source
        with _reaching(folder):
            from pyarrow import fs

            found = filesystem.get_file_info(fs.FileSelector(there, allow_not_found=True))
            return sorted({_without_draft(info.base_name) for info in found})
    return []


def remove(folder: Path, record: str | None = None) -> None:
    """Remove a folder, also where it belongs."""
    shutil.rmtree(folder, ignore_errors=True)
    if target := _open(folder):
        filesystem, there = target
        with _reaching(folder):
            for place in (_draft(there), there):
                _delete(filesystem, place, record)


def _open(path: Path) -> tuple[Any, str] | None:
    place = uri(path)
    if place is None:
        return None
    from pyarrow import fs

    with _reaching(path):
        filesystem, there = fs.FileSystem.from_uri(place)
    return filesystem, there


def _draft(there: str) -> str:
    parent, _, name = there.rpartition("/")
    return f"{parent}/.{name}.draft"


def _without_draft(name: str) -> str:
    """The name that a draft stands for; other names as they are."""
    return name[1:].removesuffix(".draft") if name.startswith(".") and name.endswith(".draft") else name


def _complete(filesystem: Any, there: str, record: str) -> str:
    """Where the newest version of a folder is complete, if any is: a draft is, until it has been copied."""
    return _draft(there) if _exists(filesystem, f"{_draft(there)}/{record}") else there


def _finish_replacing(filesystem: Any, there: str, record: str) -> None:
    """Put a complete draft in place of a folder, and remove an incomplete one."""
    draft = _draft(there)
    if _exists(filesystem, f"{draft}/{record}"):
        _delete(filesystem, there, record)
        for name in _files(filesystem, draft):
            filesystem.create_dir(f"{there}/{name}".rpartition("/")[0], recursive=True)
            filesystem.copy_file(f"{draft}/{name}", f"{there}/{name}")
    _delete(filesystem, draft, record)


def _upload_folder(filesystem: Any, folder: Path, there: str, record: str) -> None:
    _delete(filesystem, there, record)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (record, _STORED):
            _copy(filesystem, path, f"{there}/{name}")
    _upload(filesystem, folder / record, f"{there}/{record}")


def _upload(filesystem: Any, file: Path, there: str) -> None:
    """Copy a file; who reads it meanwhile sees the old one or the new one."""
    _copy(filesystem, file, _draft(there))
    filesystem.move(_draft(there), there)


def _copy(filesystem: Any, file: Path, there: str) -> None:
    from pyarrow import fs

    filesystem.create_dir(there.rpartition("/")[0], recursive=True)
    fs.copy_files(str(file), there, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)


@contextlib.contextmanager
def _download(filesystem: Any, there: str, folder: Path) -> Iterator[Path]:
    """A copy beside `folder`, marked as stored, which is removed unless it is moved away."""
    from pyarrow import fs

    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))  # other processes may fetch it, too
    try:
        fs.copy_files(there, str(draft), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
        (draft / _STORED).touch()
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _exists(filesystem: Any, there: str) -> bool:
    from pyarrow import fs

    return bool(filesystem.get_file_info(there).type != fs.FileType.NotFound)


def _read(filesystem: Any, there: str) -> bytes | None:
    """Content of a file; None if there is none."""
    if not _exists(filesystem, there):
        return None
    with filesystem.open_input_stream(there) as stream:
        return bytes(stream.read())


def _files(filesystem: Any, folder: str) -> list[str]:
    """Paths of all files in a folder, relative to it."""
    from pyarrow import fs

    found = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    return [info.path.removeprefix(f"{folder}/") for info in found if info.type == fs.FileType.File]


def _delete(filesystem: Any, folder: str, record: str | None) -> None:
    """Remove a folder, its record first: one without it counts as absent."""
    if record and _exists(filesystem, f"{folder}/{record}"):
        filesystem.delete_file(f"{folder}/{record}")
    if _exists(filesystem, folder):
        filesystem.delete_dir(folder)


@contextlib.contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """Turn what a file system raises into one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's own errors are one of these
        raise SkildError(f"{uri(path)}: cannot be reached ({one_line(error)}); see `runs` in the experiment") from None
