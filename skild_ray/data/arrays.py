"""The form of the arrays of stored episodes, told from their headers, and the memory that reading them takes."""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import psutil
from numpy.typing import ArrayLike, NDArray

from skild_ray.errors import DataError, one_line

MAX_LISTED = 10
NUMBERS = "biuf"
"""Kinds of dtype: booleans, integers, real numbers."""
NEGLIGIBLE = 50_000_000
"""Bytes for which nobody asks whether they are free: that takes longer than to read a short episode."""
CGROUPS = (
    # A container's limit, its statistics, and what they call memory that cannot be reclaimed: versions 2 and 1.
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_rss"),
)


def as_array(name: str, values: ArrayLike) -> NDArray:
    """An array of nested lists; DataError if they are ragged."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name} cannot be made an array: its rows are of different lengths") from error


def require_vectors(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise DataError unless an array of this header has one vector of real numbers a row, [N, d] with N, d > 0."""
    _require_numbers(name, dtype)
    if len(shape) == 2 and shape[1] > 0:
        return _require_rows(name, shape)
    if not shape:
        why = "it is a single value"
    elif len(shape) > 2:
        why = "each row must be a vector: flatten it; images are not read yet, encode them first"
    elif len(shape) == 2:
        why = "its rows are empty"
    elif dtype.kind in "iu":
        why = "it has one integer a row, as discrete actions are, and only continuous vectors are learned from"
    else:
        why = "it has one number a row, which is a vector as [N, 1] only"
    raise DataError(f"{name} has shape {list(shape)}, not [N, d]: {why}")


def require_column(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise DataError unless an array of this header has one real number a row, [N] or [N, 1] with N > 0."""
    _require_numbers(name, dtype)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise DataError(f"{name} has shape {list(shape)}, not [N]: each row must be one number")
    _require_rows(name, shape)


def require_equal_rows(rows: int, of: str, name: str, count: int, spare: int = 0) -> None:
    """Raise DataError unless `count` rows of an array go with `rows` of another, or up to `spare` more."""
    if not rows <= count <= rows + spare:
        raise DataError(f"{name} has {count:,} rows, which do not go with the {rows:,} of {of}")


def require_finite(name: str, values: NDArray) -> None:
    """Raise DataError if a value of an array [N, d] is not finite; the message names its row and column."""
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(f"{name} must be finite: row {row}, column {column} is {values[row, column]}")


def require_episode(observations: NDArray, actions: NDArray) -> None:
    """Raise DataError unless these are T vectors and T or T + 1 vectors: actions, and the states around them."""
    for name, array in (("observations", observations), ("actions", actions)):
        require_vectors(repr(name), array.shape, array.dtype)
    if len(observations) - len(actions) not in (0, 1):
        raise DataError(f"{len(observations)} observations do not go with {len(actions)} actions")


def require_memory(needed: int) -> None:
    """Raise DataError if that many bytes are not free."""
    if needed > NEGLIGIBLE and needed > (free := free_memory()):
        raise DataError(
            f"needs {_size(needed)} of memory to be read, and {_size(free)} are free: use fewer of its episodes "
            "(max_episodes), or a machine with more memory"
        )


def free_memory() -> int:
    """Bytes that processes may still take: of the machine, and of the container, if there is one with a limit."""
    free: int = psutil.virtual_memory().available
    for limit, statistics, key in CGROUPS:
        with contextlib.suppress(OSError, ValueError, KeyError):  # no such cgroup, or "max": no limit
            used = dict(line.split() for line in Path(statistics).read_text().splitlines())[key]
            free = min(free, int(Path(limit).read_text()) - int(used))
    return max(free, 0)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file. Whatever goes wrong with it is a DataError that names the file."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        if path.is_symlink() and not os.path.exists(path):
            raise DataError(f"{path}: is a link to {os.readlink(path)}, which is not there") from error
        reason = os.strerror(error.errno) if error.errno else one_line(error)
        raise DataError(f"{path}: cannot be read as HDF5 ({reason})") from error
    except (RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:  # HDF5's errors in damaged places
        raise DataError(f"{path}: cannot be read as HDF5 ({one_line(error)})") from error


def vectors(group: h5py.Group, name: str) -> h5py.Dataset:
    """The array [N, d] of this name, of which nothing but the header has been read.

    Raises:
        DataError: there is none, or it has another form.
    """
    array = _array(group, name)
    require_vectors(_label(group, name), array.shape, array.dtype)
    return h5py.Dataset(array)


def read_vectors(group: h5py.Group, name: str) -> NDArray:
    """All of `vectors`, in half the time of `vectors(...)[()]`, which thousands of episodes feel."""
    array = _array(group, name)
    require_vectors(_label(group, name), array.shape, array.dtype)
    require_room([array])
    values = np.empty(array.shape, array.dtype)
    array.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


def column(group: h5py.Group, name: str) -> h5py.Dataset:
    """As `vectors`, for one number a row: [N], or [N, 1]."""
    array = _array(group, name)
    require_column(_label(group, name), array.shape, array.dtype)
    return h5py.Dataset(array)


def subgroup(group: h5py.Group, name: str) -> h5py.Group:
    """The group of this name.

    Raises:
        DataError: there is none, or it is an array.
    """
    found = _member(group, name)
    if not isinstance(found, h5py.h5g.GroupID):
        raise DataError(f"{_label(group, name)} is an array, not a group of arrays")
    return h5py.Group(found)


def shapes(group: h5py.Group) -> dict[str, tuple[int, ...]]:
    """Shape of one row of each array of numbers in a group, by its path in it."""
    found: dict[str, tuple[int, ...]] = {}

    def note(path: str, member: h5py.Group | h5py.Dataset) -> None:
        if isinstance(member, h5py.Dataset) and member.dtype.kind in NUMBERS and member.shape:
            found[path] = member.shape[1:]

    group.visititems(note)
    return found


def read_marks(group: h5py.Group, name: str) -> NDArray[np.bool_]:
    """A column of marks, see `as_marks`."""
    return as_marks(_label(group, name), read_column(group, name))


def as_marks(name: str, values: NDArray) -> NDArray[np.bool_]:
    """Numbers [N] as marks: 0 or 1, or false or true, in each row.

    Raises:
        DataError: a value is neither, such as NaN.
    """
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        raise DataError(f"{name} must be 0 or 1 in every row: row {wrong[0]} is {values[wrong[0]]:g}")
    return values != 0


def ends_of_episodes(name: str, marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row after the last one of each episode, [E], by marks [N] on last rows; rows after the last mark are an episode.

    Raises:
        DataError: no row is marked.
    """
    ends = np.flatnonzero(marks) + 1
    if not len(ends):
        raise DataError(
            f"{name} never mark the end of an episode, so that its {len(marks):,} rows cannot be told apart; mark the "
            "last row of each episode"
        )
    return ends if ends[-1] == len(marks) else np.append(ends, len(marks))


def read_column(group: h5py.Group, name: str, rows: int | None = None) -> NDArray:
    """The first rows of a column, [N], see `column`."""
    array = column(group, name)
    require_room([array], rows)
    values: NDArray = array[:rows]
    return values.reshape(-1)


def require_room(arrays: Iterable[h5py.Dataset | h5py.h5d.DatasetID], rows: int | None = None) -> None:
    """Raise DataError if arrays, or that many rows of them, do not fit into memory as stored and again as float32."""
    require_memory(
        sum(
            math.prod((array.shape[0] if rows is None else rows, *array.shape[1:])) * (array.dtype.itemsize + 4)
            for array in arrays
        )
    )


def _array(group: h5py.Group, name: str) -> h5py.h5d.DatasetID:
    found = _member(group, name)
    if not isinstance(found, h5py.h5d.DatasetID):
        raise DataError(
            f"{_label(group, name)} is not an array but a group of {_listed(h5py.Group(found))}; store what is meant "
            "as one array, side by side if it is several"
        )
    if found.shape is None:  # HDF5's null space: not even a scalar
        raise DataError(f"{_label(group, name)} is empty")
    return found


def _member(group: h5py.Group, name: str) -> h5py.h5d.DatasetID | h5py.h5g.GroupID:
    try:
        return h5py.h5o.open(group.id, name.encode())
    except KeyError:
        first, *rest = name.split("/")
        if rest and first in group:
            return _member(subgroup(group, first), "/".join(rest))
        link = group.get(first, getlink=True)
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
            where = f"{link.filename}:{link.path}" if isinstance(link, h5py.ExternalLink) else link.path
            raise DataError(f"{_label(group, first)} is a link to {where}, which is not there") from None
        place = "" if group.name == "/" else f"{group.name} "
        raise DataError(f"{place}lacks {first!r}; it has {_listed(group)}") from None


def _label(group: h5py.Group, name: str) -> str:
    return repr(name) if group.name == "/" else f"{group.name}/{name}"


def _listed(group: h5py.Group) -> str:
    names = list(group)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return (", ".join(names[:MAX_LISTED]) or "nothing") + more


def _require_numbers(name: str, dtype: np.dtype) -> None:
    if dtype.kind not in NUMBERS:
        what = "text" if dtype.kind in "SU" or h5py.check_string_dtype(dtype) else dtype
        raise DataError(f"{name} is {what}, not real numbers")


def _require_rows(name: str, shape: tuple[int, ...]) -> None:
    if not shape[0]:
        raise DataError(f"{name} is empty")


def _size(count: int) -> str:
    return f"{count / 1e9:,.0f} GB" if count >= 1e10 else f"{count / 1e9:.1f} GB"
