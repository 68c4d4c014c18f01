"""HDF5 files without Minari around them: D4RL's flat files and SPiRL's folders of single trajectories."""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.errors import DataError

MARKS = ("terminals", "timeouts")


def read_d4rl(path: Path, max_episodes: int | None = None, rewards: bool = False) -> Iterator[Episode]:
    """The episodes of a D4RL-style file: `observations` [N, ds] and `actions` [N, da] of all episodes.

    `terminals` [N] and `timeouts` [N] (at least one of them) mark the last row of each episode. Rows behind the last
    mark are an episode, too. The state after the last action of an episode is not in such a file.

    Args:
        path: of the file.
        max_episodes: read the first so many.
        rewards: read `rewards` [N], too, where they are there.

    Raises:
        DataError: if the file cannot be read, lacks one of these arrays, or one has another form than the others need;
            the message names file and array. All but the marks is judged before it is read.
    """
    with arrays.opened(path) as file:
        parts = {name: arrays.vectors(file, name) for name in ("observations", "actions")}
        marks = {name: arrays.column(file, name) for name in MARKS if name in file}
        if not marks:
            raise DataError("has neither 'terminals' nor 'timeouts', so that its episodes cannot be told apart")
        if rewards and "rewards" in file:
            parts["rewards"] = arrays.column(file, "rewards")
        length = len(parts["actions"])
        for name, array in (parts | marks).items():
            arrays.require_equal_rows(length, "'actions'", repr(name), len(array))
        if max_episodes is None:  # otherwise the marks decide how many rows there are to read
            arrays.require_room((parts | marks).values())
        marked = {name: arrays.read_marks(file, name) for name in marks}
        ends = np.flatnonzero(np.logical_or.reduce(list(marked.values()))) + 1
        if not len(ends):
            raise DataError(
                f"{' and '.join(map(repr, marks))} never say that an episode ends, so that its {length:,} rows cannot "
                "be told apart; mark the last row of each episode in 'timeouts'"
            )
        if ends[-1] != length:
            ends = np.append(ends, length)
        ends = ends[:max_episodes]
        arrays.require_room(parts.values(), int(ends[-1]))
        loaded = {name: array[: ends[-1]] for name, array in parts.items()}
        terminals = marked.get("terminals", np.zeros(length, bool))
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            episode = {name: array[begin:end] for name, array in loaded.items()}
            if rewards and "rewards" in episode:
                episode["rewards"] = episode["rewards"].reshape(-1)
            yield Episode(**episode, terminated=bool(terminals[end - 1]))


def read_spirl(folder: Path, max_episodes: int | None = None, rewards: bool = False) -> Iterator[Episode]:
    """The episodes of a SPiRL-style folder, files in alphabetical order, subfolders and linked folders included.

    Each `*.h5` file holds groups `traj0`, `traj1`, ... with `states` [T, ds], `actions` [T, da] and optionally
    `rewards` and `pad_mask` [T]; all but `actions` may have one row more. Rows behind the last one with a mask of 1 are
    padding.

    Args:
        folder: with the files.
        max_episodes: read the first so many.
        rewards: read `rewards`, too, where they are there.

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


def _files(folder: Path) -> list[Path]:
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
