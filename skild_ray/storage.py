"""Runs on storage that is not mounted: worked on in a local copy, which is mirrored to a URI.

Whatever pyarrow's `FileSystem.from_uri` opens will do: s3://bucket/runs, gs://..., hdfs://..., file:///...,
fsspec+NAME://... . The path of a copy tells its URI, so every node of a cluster finds what it lacks by the path alone.
Functions do nothing for paths that are no such copies.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from skild_ray.errors import SkildError, one_line

_SEPARATOR = quote("://", safe="")


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


def push(path: Path) -> None:
    """Copy a file or folder to where it belongs, in place of what is there.

    Raises:
        SkildError: that is not possible.
    """
    if target := _open(path):
        filesystem, there = target
        with _reaching(path):
            from pyarrow import fs

            if path.is_dir():
                _delete(filesystem, there)
            filesystem.create_dir(there if path.is_dir() else there.rpartition("/")[0], recursive=True)
            fs.copy_files(str(path), there, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)


def fetch(folder: Path, record: str) -> None:
    """Make a folder what it is where it belongs, unless its file `record` is the same; without one there, remove it.

    Raises:
        SkildError: the storage cannot be read.
    """
    if source := _open(folder):
        filesystem, there = source
        with _reaching(folder):
            from pyarrow import fs

            name = f"{there}/{record}"
            if filesystem.get_file_info(name).type == fs.FileType.NotFound:
                shutil.rmtree(folder, ignore_errors=True)
                return
            with filesystem.open_input_stream(name) as stream:
                content = stream.read()
            here = folder / record
            if here.exists() and here.read_bytes() == content:
                return
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))  # other processes may fetch it, too
            fs.copy_files(there, str(draft), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
            shutil.rmtree(folder, ignore_errors=True)
            try:
                draft.rename(folder)
            except OSError:
                shutil.rmtree(draft)  # one of them has


def names(folder: Path) -> list[str]:
    """What a folder holds where it belongs."""
    if source := _open(folder):
        filesystem, there = source
        with _reaching(folder):
            from pyarrow import fs

            return [info.base_name for info in filesystem.get_file_info(fs.FileSelector(there, allow_not_found=True))]
    return []


def remove(folder: Path) -> None:
    """Remove a folder, also where it belongs."""
    shutil.rmtree(folder, ignore_errors=True)
    if target := _open(folder):
        with _reaching(folder):
            _delete(*target)


def _open(path: Path) -> tuple[Any, str] | None:
    place = uri(path)
    if place is None:
        return None
    from pyarrow import fs

    with _reaching(path):
        filesystem, there = fs.FileSystem.from_uri(place)
    return filesystem, there


def _delete(filesystem: Any, there: str) -> None:
    from pyarrow import fs

    if filesystem.get_file_info(there).type != fs.FileType.NotFound:
        filesystem.delete_dir(there)


@contextlib.contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """Turn what a file system raises into one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's own errors are one of these
        raise SkildError(f"{uri(path)}: cannot be reached ({one_line(error)}); see `runs` in the experiment") from None
