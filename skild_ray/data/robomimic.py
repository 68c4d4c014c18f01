"""robomimic's HDF5 files, which robosuite, MimicGen, robocasa and Isaac Lab write, and LIBERO's variant of them."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.keyed import KeyedEpisode
from skild_ray.data.reader import Reader
from skild_ray.errors import DataError

DEMO = re.compile(r"demo_(\d+)")


def read_robomimic(
    path: str, max_episodes: int | None = None, rewards: bool = False, filter: str | None = None
) -> Iterator[KeyedEpisode]:
    """The episodes of a robomimic file, by the numbers in their names.

    Each group `data/demo_i` holds `actions` [N, da], `obs/<key>` [N, ...] and optionally `next_obs/<key>` [N, ...],
    `rewards` [N] and `dones` [N]. The state after the last action is the last row of `next_obs`; files of MimicGen and
    LIBERO lack it.

    Args:
        path: of the file.
        max_episodes: read only the first N.
        rewards: also read `rewards` and `dones`, if the file has them.
        filter: only the episodes that `mask/<filter>` lists, such as "train".

    Raises:
        DataError: the file cannot be read, has no such filter, lacks an array or has one in another form; the message
            names file and array.
    """
    with arrays.opened(Path(path)) as file:
        data = arrays.subgroup(file, "data")
        for name in _names(file, data, filter)[:max_episodes]:
            yield _read_demo(arrays.subgroup(data, name), rewards)


def read_shapes(path: str) -> Mapping[str, tuple[int, ...]]:
    """Shape of one observation of each key, as the first episode has them."""
    with arrays.opened(Path(path)) as file:
        data = arrays.subgroup(file, "data")
        return arrays.shapes(arrays.subgroup(data, f"{_names(file, data, None)[0]}/obs"))


def _names(file: h5py.File, data: h5py.Group, filter: str | None) -> list[str]:
    demos = [name for name in data if DEMO.fullmatch(name)]
    if filter is not None:
        masks = file.get("mask", {})
        if filter not in masks:
            raise DataError(f"has no filter {filter!r}; it has {', '.join(masks) or 'none'}")
        listed = [name.decode() for name in np.asarray(masks[filter]).astype("S")]
        if missing := sorted(set(listed) - set(demos)):
            raise DataError(f"mask/{filter} lists {missing[0]!r}, which is not in 'data'")
        demos = listed
    if not demos:
        raise DataError("'data' has no episodes demo_0, demo_1, ...")
    return sorted(demos, key=_number)


def _read_demo(group: h5py.Group, rewards: bool) -> KeyedEpisode:
    actions = arrays.read_vectors(group, "actions")
    if "obs" not in group:
        raise DataError(
            f"{group.name} lacks 'obs': make observations from its states with robomimic's dataset_states_to_obs.py"
        )
    observations = arrays.subgroup(group, "obs")
    following = arrays.subgroup(group, "next_obs") if "next_obs" in group else None

    def read(key: str) -> NDArray:
        values = _read(observations, key)
        arrays.require_equal_rows(len(actions), f"{group.name}/actions", f"{group.name}/obs/{key}", len(values))
        if following is None or key not in following:
            return values
        last = _read(following, key)[-1:]
        return np.concatenate([values, last])

    paid = arrays.read_column(group, "rewards") if rewards and "rewards" in group else None
    ended = bool(arrays.read_marks(group, "dones")[-1]) if rewards and "dones" in group else False
    return KeyedEpisode(
        arrays.shapes(observations), read, partial(Episode, actions=actions, rewards=paid, terminated=ended)
    )


def _read(group: h5py.Group, key: str) -> NDArray:
    """Vectors [N, d] or numbers [N]."""
    array = group[key]
    return arrays.read_column(group, key) if array.ndim == 1 else arrays.read_vectors(group, key)


def _number(name: str) -> int:
    found = DEMO.fullmatch(name)
    assert found
    return int(found[1])


def _is_file(name: str) -> bool:
    if not os.path.isfile(name) or not h5py.is_hdf5(name):
        return False
    try:
        with h5py.File(name, "r") as file:
            data = file.get("data")
            return isinstance(data, h5py.Group) and any(map(DEMO.fullmatch, data))
    except (OSError, RuntimeError, KeyError, ValueError):  # damaged: its own reader's or another's to say
        return False


READER = Reader("robomimic's or LIBERO's HDF5 file", _is_file, read_robomimic, shapes=read_shapes, takes_filter=True)
