"""SPiRL-style folders: HDF5 files of single trajectories."""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.reader import Reader
from skild_ray.errors import DataError


def read_spirl(folder: str, max_episodes: int | None = None, rewards: bool = False) -> Iterator[Episode]:
    """The episodes of a SPiRL-style folder, files in alphabetical order, subfolders and linked folders included.

    Each `*.h5` file holds groups `traj0`, `traj1`, ... with `states` [T, ds], `actions` [T, da] and optionally
    `rewards` and `pad_mask` [T]; all but `actions` may have one row more. Rows after the last one with a mask of 1 are
    padding.

    Args:
        folder: with the files.
        max_episodes: read only the first N.
        rewards: also read `rewards`, if the files have them.

    Raises:
        DataError: if there is no such file, or one cannot be read, lacks one of these arrays or has it in another form;
            the message names file and array.
    """
    paths = _files(folder)
    if not paths:
        raise DataError(
            f"{folder}: there is no *.h5 file in this folder; a D4RL-style file is named itself, a Minari data set by "
            "its id"
        )
    remaining = max_episodes
    for path in paths:
        with arrays.opened(path) as file:
            arrays.subgroup(file, "traj0")
            names = sorted((name for name in file if name.startswith("traj") and name[4:].isdigit()), key=_number)
            for name in names[:remaining]:
                yield _read_trajectory(arrays.subgroup(file, name), rewards)
        if remaining is not None:
            remaining -= len(names)
            if remaining <= 0:
                return


def _read_trajectory(group: h5py.Group, rewards: bool) -> Episode:
    states, actions = arrays.vectors(group, "states"), arrays.vectors(group, "actions")
    length = len(actions)
    columns = [name for name in ("pad_mask", *(["rewards"] if rewards else [])) if name in group]
    for name, array in {"states": states, **{name: arrays.column(group, name) for name in columns}}.items():
        arrays.require_equal_rows(length, f"{group.name}/actions", f"{group.name}/{name}", len(array), spare=1)
    if "pad_mask" in columns:
        used = np.flatnonzero(arrays.read_marks(group, "pad_mask")[:length])
        if not len(used):
            raise DataError(f"{group.name} is nothing but padding")
        length = int(used[-1]) + 1
    arrays.require_room([states, actions], length)
    paid = arrays.read_column(group, "rewards", length) if "rewards" in columns else None
    return Episode(states[:length], actions[:length], paid)


def _files(folder: str) -> list[Path]:
    """The *.h5 files below a folder, in order. Links are followed; a folder that they reach twice counts once."""
    found: list[Path] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names if name.endswith(".h5")]
    return sorted(found)


def _number(name: str) -> int:
    return int(name[4:])


READER = Reader("a folder of SPiRL-style .h5 files", os.path.isdir, read_spirl)
