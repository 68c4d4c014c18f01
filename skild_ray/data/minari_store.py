"""Minari data sets: reading them quickly, and writing them so that they are complete or absent."""

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import h5py
import minari
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer
from minari.dataset.episode_data import EpisodeData
from minari.dataset.minari_dataset import MinariDataset, parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage.datasets_root_dir import get_dataset_path

from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.keyed import KeyedEpisode, default_keys
from skild_ray.data.reader import Reader
from skild_ray.envs.chosen_observations import at, boxes_in
from skild_ray.errors import DataError, described, one_line

SUBTASKS_KEY = "subtasks"
EXECUTED_KEY = "executed_actions"
"""In an episode's infos: `Episode.executed_actions`, a row for each of its actions."""
SEPARATOR = ", "
# Bytes of an episode in HDF5 beside states and actions: groups, chunk indices, rewards.
EPISODE_OVERHEAD = 20_000


def datasets_root() -> Path:
    """The folder of the local Minari data sets: MINARI_DATASETS_PATH, or ~/.minari/datasets.

    Raises:
        DataError: if it cannot be made.
    """
    try:
        return get_dataset_path()
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot make this folder ({error.strerror}); choose another place for data sets with "
            "the environment variable MINARI_DATASETS_PATH"
        ) from None


def dataset_exists(dataset_id: str) -> bool:
    """Whether the local Minari data sets include this one."""
    return (datasets_root() / dataset_id / "data").is_dir()


def is_minari_id(name: str) -> bool:
    """Whether a name is like `namespace/name-v0`."""
    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # the latter where there is no version
        return False
    return True


def open_minari(dataset_id: str) -> MinariDataset:
    """A local Minari data set.

    Raises:
        DataError: if it is not there, which names the place and what makes or downloads it, or cannot be read.
    """
    if not dataset_exists(dataset_id):
        raise DataError(
            f"data set {dataset_id!r} is not in {datasets_root()}: set MINARI_DATASETS_PATH to the folder that has it, "
            f"download it with 'skild-ray data download {dataset_id}' or make the ones of an experiment with "
            "'skild-ray data generate EXPERIMENT'"
        )
    with _reading(dataset_id):
        return minari.load_dataset(dataset_id)


def read_minari(
    dataset_id: str, max_episodes: int | None = None, rewards: bool = False
) -> Iterator[Episode | KeyedEpisode]:
    """The episodes of a Minari data set; keyed ones where observations are a dictionary.

    Args:
        dataset_id: of a local data set.
        max_episodes: read only the first N.
        rewards: read everything that an `Episode` has, which takes longer, not only states, actions and sub-tasks.

    Raises:
        DataError: if it is missing, cannot be read, or its spaces are others.
    """
    dataset = open_minari(dataset_id)
    observations, actions = dataset.observation_space, dataset.action_space
    keyed = isinstance(observations, spaces.Dict)
    for name, space in (("observations", observations), ("actions", actions)):
        if not (isinstance(space, spaces.Box) and len(space.shape) == 1) and not (keyed and space is observations):
            wanted = f"a vector{', or a dictionary of vectors' if space is observations else ''}"
            raise DataError(f"data set {dataset_id!r}: {name} are {space}, not {wanted}")
    parts = boxes_in(observations) if keyed else {}
    shapes = {key: box.shape for key, box in parts.items()}
    indices = dataset.episode_indices[:max_episodes]
    with _reading(dataset_id):
        boxes = {f"observations/{key}": parts[key] for key in default_keys(shapes)} if keyed else {}
        boxes = boxes or {"observations": observations}
        share = len(indices) / max(dataset.total_episodes, 1)
        widths = sum(math.prod(box.shape) * (box.dtype.itemsize + 4) for box in (*boxes.values(), actions))
        arrays.require_memory(int(share * dataset.total_steps * widths))
        path = dataset.storage.data_path / "main_data.hdf5"
        if dataset.storage.FORMAT == "hdf5" and not rewards:
            yield from _read_hdf5(path, indices, shapes if keyed else None)
            return
        if dataset.storage.FORMAT == "hdf5":
            _require_arrays(path, indices, boxes)  # Minari's own errors name no array
        told = list(dataset.storage.get_episode_metadata(indices))
        for episode, facts in zip(dataset.iterate_episodes(indices), told, strict=True):
            paid, ends = (_column(episode, name) for name in ("rewards", "terminations"))
            complete = partial(
                Episode,
                actions=episode.actions,
                rewards=paid,
                terminated=bool(arrays.as_marks("'terminations'", ends)[-1]),
                seed=facts.get("seed"),
                subtasks=_subtasks(facts),
                executed_actions=_executed_actions(episode),
            )
            if keyed:
                yield KeyedEpisode(shapes, partial(at, episode.observations), complete)
            else:
                yield complete(episode.observations)


def read_shapes(dataset_id: str) -> dict[str, tuple[int, ...]]:
    """Shape of one observation of each key of a local data set; empty where observations are no dictionary."""
    space = open_minari(dataset_id).observation_space
    return {key: box.shape for key, box in boxes_in(space).items()} if isinstance(space, spaces.Dict) else {}


def read_metadata(dataset_id: str) -> dict[str, Any]:
    """Metadata of a local data set.

    Raises:
        DataError: see `open_minari`.
    """
    dataset = open_minari(dataset_id)
    with _reading(dataset_id):
        return dataset.storage.metadata


class MinariWriter:
    """Writes a Minari data set beside its place and moves it there when the `with` block ends without an error.

    If another process wrote the same data set in the meantime, that one stays.

    Args:
        dataset_id: `namespace/name-v0`.
        observation_space: of the environment.
        action_space: of the environment.
        metadata: of the data set, JSON-able; see Minari for the keys it knows.
        spec: of the environment, if it has one.
        resumable: text that stands for all that will be written. A draft that an interrupted writer of the same text
            left is continued; otherwise an error leaves nothing.

    Attributes:
        written: episodes that the draft already has, once the `with` block has begun.

    Raises:
        DataError: if the id is malformed, or the place cannot be written or is full; the message names the path.
    """

    def __init__(
        self,
        dataset_id: str,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        metadata: Mapping[str, Any],
        spec: EnvSpec | None = None,
        resumable: str | None = None,
    ):
        if not is_minari_id(dataset_id):
            raise DataError(f"{dataset_id!r} is no Minari id: it must be like 'namespace/name-v0'")
        self._namespace = parse_dataset_id(dataset_id)[0]
        self._id = dataset_id
        self._spaces = {"observation_space": observation_space, "action_space": action_space}
        self._metadata, self._spec = metadata, spec
        self._final = datasets_root() / dataset_id
        self._draft = self._final.with_name(f".{self._final.name}.{resumable or uuid4().hex[:8]}")
        self._is_resumable, self.written = resumable is not None, 0

    def __enter__(self) -> "MinariWriter":
        with self._writing():
            if self._namespace and self._namespace not in list_local_namespaces():
                with contextlib.suppress(ValueError):  # another process was faster
                    create_namespace(self._namespace)
            if self._draft.exists() and self._continues():
                return self
            shutil.rmtree(self._draft, ignore_errors=True)
            self._draft.mkdir(parents=True)
            self._storage = MinariStorage.new(self._draft / "data", env_spec=self._spec, **self._spaces)
            self._storage.update_metadata(
                {"dataset_id": self._id, "minari_version": minari.__version__, **self._metadata}
            )
        return self

    def update_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add to the metadata of the data set, or replace what is there."""
        with self._writing():
            self._storage.update_metadata(dict(metadata))

    def append(self, episodes: Sequence[Episode]) -> None:
        """Write complete episodes (T + 1 observations, rewards) behind those already there."""
        first = self._storage.total_episodes
        with self._writing():
            self._require_space(episodes)
            self._storage.update_episodes(map(_to_buffer, episodes))
            orders = {
                first + index: {SUBTASKS_KEY: SEPARATOR.join(episode.subtasks)}
                for index, episode in enumerate(episodes)
                if episode.subtasks
            }
            if orders:
                self._storage.update_episode_metadata(orders.values(), orders.keys())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._writing():
                    try:
                        self._draft.rename(self._final)
                    except OSError:
                        if not self._final.exists():
                            raise
        finally:
            if kind is None or not self._is_resumable:
                shutil.rmtree(self._draft, ignore_errors=True)

    def _continues(self) -> bool:
        """Whether a draft can be continued; what was being written when it was left is dropped."""
        try:
            self._storage = MinariStorage.read(self._draft / "data")
            count = int(self._storage.total_episodes)
            whole = {f"episode_{index}" for index in range(count)}
            with h5py.File(self._storage.data_path / "main_data.hdf5", "a") as file:
                for name in set(file) - whole:  # of the batch that was being written
                    del file[name]
                is_whole = set(file) == whole
        except Exception:  # whatever Minari and HDF5 raise in damaged places; it is begun again
            return False
        self.written = count if is_whole else 0
        return is_whole

    def _require_space(self, episodes: Sequence[Episode]) -> None:
        # HDF5 survives a full disk badly: each of its open objects complains once more.
        needed = sum(e.observations.nbytes + 2 * e.actions.nbytes + EPISODE_OVERHEAD for e in episodes)
        if shutil.disk_usage(self._draft).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
            shutil.rmtree(self._draft, ignore_errors=True)
            raise DataError(
                f"{self._final}: cannot write ({one_line(error)}); free space there or choose another place with the "
                "environment variable MINARI_DATASETS_PATH"
            ) from error


def _read_hdf5(
    path: Path, indices: Sequence[int], shapes: Mapping[str, tuple[int, ...]] | None
) -> Iterator[Episode | KeyedEpisode]:
    """As Minari's own iterator, but only states, actions and sub-tasks, and four times as fast."""
    with h5py.File(path, "r") as file:
        for index in indices:
            group = arrays.subgroup(file, f"episode_{index}")
            actions, subtasks = arrays.read_vectors(group, "actions"), _subtasks(group.attrs)
            if shapes is None:
                yield Episode(arrays.read_vectors(group, "observations"), actions, subtasks=subtasks)
            else:
                complete = partial(Episode, actions=actions, subtasks=subtasks)
                yield KeyedEpisode(shapes, partial(_read_key, group, shapes), complete)


def _read_key(group: h5py.Group, shapes: Mapping[str, tuple[int, ...]], key: str) -> np.ndarray:
    read = arrays.read_vectors if shapes[key] else arrays.read_column
    return read(group, f"observations/{key}")


def _require_arrays(path: Path, indices: Sequence[int], observations: Mapping[str, spaces.Box]) -> None:
    with h5py.File(path, "r") as file:
        for index in indices:
            group = arrays.subgroup(file, f"episode_{index}")
            columns = ["rewards", "terminations", *(name for name, box in observations.items() if not box.shape)]
            vectors = ["actions", *(name for name, box in observations.items() if box.shape)]
            arrays.require_room(
                [
                    *(arrays.vectors(group, name) for name in vectors),
                    *(arrays.column(group, name) for name in columns),
                ]
            )


def _column(episode: EpisodeData, name: str) -> np.ndarray:
    """One number for each action, [T]."""
    values, label = np.asarray(getattr(episode, name)), f"{name!r} of episode {episode.id}"
    arrays.require_column(label, values.shape, values.dtype)
    arrays.require_equal_rows(len(episode.actions), "its actions", label, len(values))
    return values.reshape(-1)


def _to_buffer(episode: Episode) -> EpisodeBuffer:
    length = len(episode.actions)
    terminations, truncations = np.zeros(length, bool), np.zeros(length, bool)
    (terminations if episode.terminated else truncations)[-1] = True
    rewards = np.zeros(length, np.float32) if episode.rewards is None else episode.rewards
    infos = {} if episode.executed_actions is None else {EXECUTED_KEY: episode.executed_actions}
    return EpisodeBuffer(
        None, episode.seed, None, episode.observations, episode.actions, rewards, terminations, truncations, infos
    )


def _subtasks(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(filter(None, str(metadata.get(SUBTASKS_KEY, "")).split(SEPARATOR)))


def _executed_actions(episode: EpisodeData) -> np.ndarray | None:
    executed = (episode.infos or {}).get(EXECUTED_KEY)
    if executed is None:
        return None
    executed, shape = np.asarray(executed), episode.actions.shape
    if executed.shape == (shape[0] + 1, *shape[1:]):
        executed = executed[1:]  # Minari's collectors begin with the info of `reset`, which belongs to no action
    if executed.shape != shape:
        raise ValueError(
            f"episode {episode.id}: {EXECUTED_KEY!r} in its infos is {list(executed.shape)}, its actions are "
            f"{list(shape)}"
        )
    arrays.require_vectors(f"{EXECUTED_KEY!r} in the infos of episode {episode.id}", executed.shape, executed.dtype)
    return executed


@contextlib.contextmanager
def _reading(dataset_id: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"data set {dataset_id!r} in {datasets_root()}: {error}") from error
    except Exception as error:  # whatever Minari and its storage formats raise in damaged places
        raise DataError(
            f"data set {dataset_id!r} in {datasets_root()} cannot be read: {described(error)}; if it is damaged, "
            "delete its folder there and make or download it again"
        ) from error


def _is_id(name: str) -> bool:
    return is_minari_id(name) and not os.path.exists(name)


READER = Reader("a Minari id like 'namespace/name-v0'", _is_id, read_minari, read_metadata, read_shapes)
