"""HDF5 files without Minari around them: D4RL's flat files and SPiRL's folders of single trajectories."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from skild_ray.data.episode import Episode
from skild_ray.errors import DataError


def read_d4rl(path: Path, max_episodes: int | None = None) -> Iterator[Episode]:
    """The episodes of a D4RL-style file: `observations` [N, ds] and `actions` [N, da] of all episodes.

    `terminals` [N] and `timeouts` [N] (at least one of them) mark the last row of each episode. Rows behind the last
    mark are an episode, too. The state after the last action of an episode is not in such a file.

    Raises:
        DataError: if the file cannot be read or lacks one of these arrays.
    """
    with _opened(path) as file:
        _require(file, path, "observations", "actions")
        marks = [np.asarray(file[name][()], bool).reshape(-1) for name in ("terminals", "timeouts") if name in file]
        if not marks:
            raise DataError(
                f"{path}: has neither 'terminals' nor 'timeouts', so that its episodes cannot be told apart"
            )
        length = len(file["actions"])
        for name, count in (("observations", len(file["observations"])), ("terminals or timeouts", len(marks[0]))):
            if count != length:
                raise DataError(f"{path}: {count} {name} do not go with {length} actions")
        ends = np.flatnonzero(np.logical_or.reduce(marks)) + 1
        if not len(ends) or ends[-1] != length:
            ends = np.append(ends, length)
        ends = ends[:max_episodes]
        arrays = {name: file[name][: ends[-1]] for name in ("observations", "actions", "rewards") if name in file}
        terminals = marks[0] if "terminals" in file else np.zeros(length, bool)
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            parts = {name: array[begin:end] for name, array in arrays.items()}
            yield Episode(**parts, terminated=bool(terminals[end - 1]))


def read_spirl(folder: Path, max_episodes: int | None = None) -> Iterator[Episode]:
    """The episodes of a SPiRL-style folder, files in alphabetical order, subfolders included.

    Each `*.h5` file holds groups `traj0`, `traj1`, ... with `states` [T, ds], `actions` and optionally `rewards` and
    `pad_mask` [T]. Rows behind the last one with a mask of 1 are padding.

    Raises:
        DataError: if there is no such file, or one cannot be read or lacks one of these arrays.
    """
    paths = sorted(folder.rglob("*.h5"))
    if not paths:
        raise DataError(f"{folder}: there is no *.h5 file in this folder")
    remaining = max_episodes
    for path in paths:
        with _opened(path) as file:
            _require(file, path, "traj0")
            groups = sorted((name for name in file if name.startswith("traj") and name[4:].isdigit()), key=_number)
            for name in groups[:remaining]:
                yield _read_trajectory(file[name], path)
        if remaining is not None:
            remaining -= len(groups)
            if remaining <= 0:
                return


def _read_trajectory(group: h5py.Group, path: Path) -> Episode:
    _require(group, path, "states", "actions")
    states, actions = group["states"][()], group["actions"][()]
    length = min(len(states), len(actions))
    if "pad_mask" in group:
        used = np.flatnonzero(group["pad_mask"][:length])
        if not len(used):
            raise DataError(f"{path}: {group.name} is nothing but padding")
        length = int(used[-1]) + 1
    rewards = group["rewards"][:length] if "rewards" in group else None
    return Episode(states[:length], actions[:length], rewards)


def _number(name: str) -> int:
    return int(name[4:])


def _require(group: h5py.Group, path: Path, *names: str) -> None:
    for name in names:
        if name not in group:
            present = ", ".join(group) or "nothing"
            raise DataError(f"{path}: {'' if group.name == '/' else group.name + ' '}lacks {name!r}; it has {present}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read as HDF5 ({' '.join(str(error).split())})") from error
