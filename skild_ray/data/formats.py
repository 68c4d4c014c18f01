"""Data sets by name, in any of the formats that are read, checked and laid out for an environment."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.data.episode import Episode
from skild_ray.data.hdf5_files import read_d4rl, read_spirl
from skild_ray.data.minari_store import (
    MinariWriter,
    dataset_exists,
    is_minari_id,
    read_metadata,
    read_minari,
    read_subtasks,
)
from skild_ray.data.orders import Order, describe_orders, indices_of, order_from_states
from skild_ray.data.rewards import for_task
from skild_ray.data.trajectories import Trajectories
from skild_ray.envs.conventions import ACTION_TOLERANCE, offered
from skild_ray.errors import DataError, described

HDF5_SUFFIXES = (".hdf5", ".h5")


def is_minari(name: str) -> bool:
    """Whether the name of a data set is a Minari id rather than the path of a file or folder."""
    path = _path(name)
    is_path = path.suffix in HDF5_SUFFIXES or os.path.exists(path) or name.startswith((".", "/", "~"))
    return is_minari_id(name) and not is_path


def load_dataset(
    name: str,
    environment: gym.Env | None = None,
    max_episodes: int | None = None,
    select: Sequence[str] | None = None,
) -> Trajectories:
    """Load a data set into memory.

    Args:
        name: a D4RL-style `.hdf5` or `.h5` file, a folder of SPiRL-style files, or the id of a local Minari data set.
        environment: whose observations and actions the data must fit. Observations of another layout are converted if
            it has a method `convert_observations`.
        max_episodes: load the first so many.
        select: only of the episodes that solve exactly these sub-tasks in this order, as `read_orders` says.

    Raises:
        DataError: if the data set is missing or cannot be read, has a value that is not finite, does not fit the
            environment, or has no episode to select; the message names the data set.
    """
    episodes = _read_selected(name, environment, max_episodes, select)
    with _naming(name):
        data = Trajectories.from_episodes(
            [episode.observations for episode in episodes], [episode.actions for episode in episodes]
        )
        if environment is None:
            return data
        _check_actions(data.actions, environment)
        observations = _convert(data.observations, environment)
        return data if observations is data.observations else replace(data, observations=observations)


def read_orders(name: str, environment: gym.Env | None = None) -> list[Order]:
    """Names of the sub-tasks that each episode solves, in order.

    They are those in the metadata of a Minari data set's episode or else those that its states show, see
    `order_from_states`.

    Raises:
        DataError: see `load_dataset`.
    """
    return [episode.subtasks for episode in _read_with_orders(name, environment)]


def load_rewarded_episodes(
    name: str,
    environment: gym.Env,
    max_episodes: int | None = None,
    select: Sequence[str] | None = None,
    needed: bool = True,
) -> list[Episode]:
    """Load episodes in the environment's layout, with executed actions, and rewards and ends of its task (`for_task`).

    Arguments as for `load_dataset`, and:
        needed: whether to insist on rewards; otherwise all are 0, for learning that makes its own.

    Raises:
        DataError: as `load_dataset` and `for_task`, or if needed rewards are missing, not finite, or all 0.
    """
    load_dataset(name, environment, max_episodes, select)
    episodes = _read_selected(name, environment, max_episodes, select, rewards=True)
    metadata = read_metadata(name) if is_minari(name) else {}
    with _naming(name):
        for episode in episodes:
            if episode.executed_actions is not None:
                _check_actions(episode.executed_actions, environment, "executed actions")
        episodes = [
            replace(episode, observations=_convert(np.asarray(episode.observations, np.float32), environment))
            for episode in episodes
        ]
        episodes = for_task(episodes, metadata, environment)
        if not needed:
            return [replace(episode, rewards=np.zeros(len(episode.actions), np.float32)) for episode in episodes]
        rewards = [np.asarray(episode.rewards, np.float32) for episode in episodes if episode.rewards is not None]
        if len(rewards) < len(episodes) or not any(part.any() for part in rewards):
            raise DataError("it has no rewards for this task, and learning from its transitions needs them")
        if not all(np.isfinite(part).all() for part in rewards):
            raise DataError("a reward is not finite")
        return episodes


def import_dataset(name: str, minari_id: str, environment: gym.Env) -> int:
    """Store a data set of any format as a Minari data set in the environment's own layout.

    Where the format lacks the last state of an episode, the last action is dropped, because Minari wants one state more
    than actions. Missing rewards become 0. The orders of `read_orders` become metadata of the episodes.

    Args:
        name: see `load_dataset`.
        minari_id: of the new data set, like `namespace/name-v0`.
        environment: gives the layout, and a specification for Minari.

    Returns:
        The number of episodes stored.

    Raises:
        DataError: as `load_dataset`, or if there is a data set of this id, or it cannot be written.
    """
    if dataset_exists(minari_id):
        raise DataError(f"there is a Minari data set {minari_id!r} already: choose another id or delete it")
    load_dataset(name, environment)
    episodes = _read_with_orders(name, environment, rewards=True)
    with _naming(name):
        episodes = [_complete(episode, environment) for episode in episodes]
        kept = [episode for episode in episodes if len(episode.actions)]
        if not kept:
            raise DataError(
                f"none of its {len(episodes):,} episodes has a transition: that takes an action and the states before "
                "and after it, and this format lacks the state after the last action"
            )
        if len(kept) < len(episodes):
            print(f"{name}: {len(episodes) - len(kept):,} of {len(episodes):,} episodes have no transition, left out")
    known = read_metadata(name) if is_minari(name) else {}
    metadata = {
        "description": f"Imported from {name}.{describe_orders(episode.subtasks for episode in kept)}",
        "author": known.get("author", {"unknown"}),
        "algorithm_name": known.get("algorithm_name", "unknown"),
    }
    writer = MinariWriter(
        minari_id, environment.observation_space, environment.action_space, metadata, environment.spec
    )
    with writer:
        writer.append(kept)
    return len(kept)


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name))


def _read(name: str, max_episodes: int | None, rewards: bool = False) -> Iterator[Episode]:
    if is_minari(name):
        return read_minari(name, max_episodes, rewards)
    path = _path(name)
    if os.path.isdir(path):
        return read_spirl(path, max_episodes, rewards)
    if path.suffix in HDF5_SUFFIXES and os.path.lexists(path):
        return read_d4rl(path, max_episodes, rewards)
    if os.path.exists(path):
        raise DataError(
            f"{path}: is a file of another kind than those that are read, D4RL-style .hdf5 or .h5; folders are read as "
            "SPiRL-style ones, and names like 'namespace/name-v0' as Minari data sets"
        )
    raise DataError(
        f"{path}: there is no such {'file' if path.suffix in HDF5_SUFFIXES else 'file or folder'}"
        + ("" if name.startswith((".", "/", "~")) else ", and a Minari id is like 'namespace/name-v0'")
    )


def _read_selected(
    name: str,
    environment: gym.Env | None,
    max_episodes: int | None,
    select: Sequence[str] | None,
    rewards: bool = False,
) -> list[Episode]:
    """The episodes that `load_dataset` wants; with rewards and terminations only if asked for."""
    if select is None:
        return list(_read(name, max_episodes, rewards))
    episodes = _read_with_orders(name, environment, rewards)
    with _naming(name):
        selected = indices_of([episode.subtasks for episode in episodes], select)
    return [episodes[index] for index in selected[:max_episodes]]


def _read_with_orders(name: str, environment: gym.Env | None, rewards: bool = False) -> list[Episode]:
    """All episodes with their `subtasks`."""
    episodes = list(_read(name, None, rewards))
    told = read_subtasks(name) if is_minari(name) else [()] * len(episodes)
    with _naming(name):
        return [
            replace(episode, subtasks=order or order_from_states(episode.observations, environment))
            for episode, order in zip(episodes, told, strict=True)
        ]


def _complete(episode: Episode, environment: gym.Env) -> Episode:
    """In the environment's layout, with one observation more than actions."""
    length = min(len(episode.actions), len(episode.observations) - 1)
    return replace(
        episode,
        observations=_convert(np.asarray(episode.observations[: length + 1], np.float32), environment),
        actions=np.asarray(episode.actions[:length], np.float32),
        executed_actions=None
        if episode.executed_actions is None
        else np.asarray(episode.executed_actions[:length], np.float32),
        rewards=None if episode.rewards is None else np.asarray(episode.rewards[:length], np.float32),
        # The last transition went with its action.
        terminated=episode.terminated and length == len(episode.actions),
    )


def _check_actions(actions: NDArray[np.floating], environment: gym.Env, what: str = "actions") -> None:
    shape = environment.action_space.shape
    if shape != actions.shape[1:]:
        wanted = " x ".join(map(str, shape or ())) or "no"
        raise DataError(f"{what} have {actions.shape[1]} dimensions, the environment's have {wanted}")
    beyond = ~(np.abs(actions) <= 1 + ACTION_TOLERANCE)  # NaN, too
    if beyond.any():
        row, column = np.argwhere(beyond)[0]
        raise DataError(
            f"{what} must be in [-1, 1]: row {row}, column {column} is {actions[row, column]:g}; scale them, and the "
            "environment's with gymnasium.wrappers.RescaleAction"
        )


def _convert(observations: NDArray[np.float32], environment: gym.Env) -> NDArray[np.float32]:
    """In the environment's layout, a row for each row; unchanged where it converts nothing."""
    convert = offered(environment, "convert_observations")
    if convert is not None:
        rows = len(observations)
        try:
            observations = np.asarray(convert(observations), np.float32)
        except ValueError as error:
            raise DataError(str(error)) from error
        except Exception as error:  # whatever a user's environment raises
            raise DataError(f"the environment's convert_observations fails: {described(error)}") from error
        if observations.ndim != 2 or len(observations) != rows:
            raise DataError(
                f"the environment's convert_observations gives shape {list(observations.shape)} for {rows} observations"
            )
    shape = environment.observation_space.shape
    if shape != observations.shape[1:]:
        wanted = " x ".join(map(str, shape or ())) or "no"
        raise DataError(f"observations have {observations.shape[1]} dimensions, the environment's have {wanted}")
    return observations


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"data set {name!r}: {error}") from error
