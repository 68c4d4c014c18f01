"""D4RL-style files: flat HDF5 arrays of all episodes, one after another."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.reader import Reader
from skild_ray.errors import DataError

SUFFIXES = (".hdf5", ".h5")
MARKS = ("terminals", "timeouts")


def read_d4rl(path: str, max_episodes: int | None = None, rewards: bool = False) -> Iterator[Episode]:
    """The episodes of a D4RL-style file: `observations` [N, ds] and `actions` [N, da] of all episodes.

    `terminals` [N] and `timeouts` [N] (at least one of them) mark the last row of each episode. Rows after the last
    mark are an episode. Such a file lacks the state after the last action of an episode.

    Args:
        path: of the file.
        max_episodes: read only the first N.
        rewards: also read `rewards` [N], if the file has them.

    Raises:
        DataError: if the file cannot be read, lacks one of these arrays, or one has another form than the others need;
            the message names file and array. All but the marks is judged before it is read.
    """
    with arrays.opened(Path(path)) as file:
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
        names = " and ".join(map(repr, marks))
        ends = arrays.ends_of_episodes(names, np.logical_or.reduce(list(marked.values())))[:max_episodes]
        arrays.require_room(parts.values(), int(ends[-1]))
        loaded = {name: array[: ends[-1]] for name, array in parts.items()}
        terminals = marked.get("terminals", np.zeros(length, bool))
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            episode = {name: array[begin:end] for name, array in loaded.items()}
            if rewards and "rewards" in episode:
                episode["rewards"] = episode["rewards"].reshape(-1)
            yield Episode(**episode, terminated=bool(terminals[end - 1]))


def _is_file(name: str) -> bool:
    return name.endswith(SUFFIXES) and os.path.lexists(name) and not os.path.isdir(name)


READER = Reader("a D4RL-style .hdf5 or .h5 file", _is_file, read_d4rl)
