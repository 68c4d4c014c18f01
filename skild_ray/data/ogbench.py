"""OGBench's files: flat `.npz` arrays of all episodes, where the last row of each is a state without an action."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.reader import Reader
from skild_ray.errors import DataError, one_line

SUFFIX = ".npz"


def read_ogbench(path: str, max_episodes: int | None = None, rewards: bool = False) -> Iterator[Episode]:
    """The episodes of an OGBench file: `observations` [M, ds], `actions` [M, da] and `terminals` [M].

    An episode of T transitions has T + 1 rows. The last one, marked in `terminals`, is the final state; its action
    means nothing. See `ogbench.utils.load_dataset`. Rows after the last mark are an episode.

    OGBench itself stores no rewards. `rewards` [M] of a file that has them belong to the action of their row.

    Args:
        path: of the file.
        max_episodes: read only the first N.
        rewards: also read `rewards`, if the file has them.

    Raises:
        DataError: the file cannot be read, lacks an array, or has one in another form; the message names file and
            array.
    """
    with _opened(path) as file:
        marks = arrays.as_marks("'terminals'", _array(file, "terminals").reshape(-1))
        names = ["observations", "actions", *(["rewards"] if rewards and "rewards" in file.files else [])]
        parts = {name: _array(file, name) for name in names}
        for name, array in parts.items():
            arrays.require_equal_rows(len(marks), "'terminals'", repr(name), len(array))
        ends = arrays.ends_of_episodes("'terminals'", marks)[:max_episodes]
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        paid = parts["rewards"][begin : end - 1].reshape(-1) if "rewards" in parts else None
        yield Episode(parts["observations"][begin:end], parts["actions"][begin : end - 1], paid)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[np.lib.npyio.NpzFile]:
    """An npz file. Whatever goes wrong with it is a DataError that names the file."""
    try:
        with np.load(path) as file:
            yield file
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # of zipfile, zlib and numpy, in damaged places
        raise DataError(f"{path}: cannot be read as .npz ({one_line(error)})") from error


def _array(file: np.lib.npyio.NpzFile, name: str) -> NDArray:
    """An array of the file; its form and its size are judged before it is read."""
    if name not in file.files:
        raise DataError(f"lacks {name!r}; it has {', '.join(file.files) or 'nothing'}")
    shape, dtype = _header(file, name)
    require = arrays.require_vectors if name in ("observations", "actions") else arrays.require_column
    require(repr(name), shape, dtype)
    arrays.require_memory(int(np.prod(shape)) * (dtype.itemsize + 4))
    values: NDArray = file[name]
    return values


def _header(file: np.lib.npyio.NpzFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    assert file.zip is not None
    with file.zip.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        return shape, dtype


def _is_file(name: str) -> bool:
    return Path(name).suffix == SUFFIX and os.path.lexists(name) and not os.path.isdir(name)


READER = Reader("OGBench's .npz file", _is_file, read_ogbench)
