"""Data sets in any of the formats that are read, or in memory, checked and laid out for an environment."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.config import Source
from skild_ray.data import arrays
from skild_ray.data.episode import Episode
from skild_ray.data.keyed import KeyedEpisode, default_keys
from skild_ray.data.orders import Order, indices_of, order_from_states
from skild_ray.data.registry import find_reader
from skild_ray.data.rewards import for_task, judges
from skild_ray.data.trajectories import Trajectories
from skild_ray.envs.conventions import ACTION_TOLERANCE, offered
from skild_ray.envs.scaled_actions import ActionMap
from skild_ray.errors import DataError, SkildError, about, described


@dataclass(frozen=True)
class Stored:
    """A stored data set, and what of it is wanted.

    Attributes:
        name: see `find_reader`.
        observations: keys, see `KeyedEpisode.choose`; None for those of the environment, or else its default, or where
            observations have no keys.
        filter: the part of the data set, where its format has named parts, such as "train".
    """

    name: str
    observations: tuple[str, ...] | None = None
    filter: str | None = None

    @classmethod
    def of(cls, source: Source) -> "Stored":
        """What a source of an experiment names."""
        keys = None if source.observations is None else tuple(source.observations)
        return cls(source.dataset or "", keys, source.filter)


Dataset = str | Stored | Trajectories | Sequence[Episode]
"""A data set by a name that `find_reader` understands, or in memory."""


def load_dataset(
    dataset: Dataset,
    environment: gym.Env | None = None,
    max_episodes: int | None = None,
    select: Sequence[str] | None = None,
) -> Trajectories:
    """Load a data set into memory.

    Args:
        dataset: the path or id of a data set in one of the formats of `registry.READERS`, `format:path`,
            `module:attribute:path` with a `Reader` of another package; or trajectories or episodes in memory.
        environment: whose observations and actions the data must fit. Where observations have keys, those of its
            attribute `observation_keys` are chosen. Observations of another layout are converted if it has a method
            `convert_observations`. Actions are scaled by its `action_map`, unless they were generated in it.
        max_episodes: load only the first N.
        select: only of the episodes that solve exactly these sub-tasks in this order, as `load_with_orders` says.

    Raises:
        DataError: if the data set is missing or cannot be read, has a value that is not finite, does not fit the
            environment, or has no episode to select; the message names the data set.
    """
    return _joined(dataset, _checked(dataset, _selected(dataset, environment, max_episodes, select), environment))


def load_with_orders(dataset: Dataset, environment: gym.Env | None = None) -> tuple[Trajectories, list[Order]]:
    """A data set in its own layout, and the names of the sub-tasks that each episode solves, in order.

    The names are those that the data set itself tells, or else those that the states show, see `order_from_states`.

    Raises:
        DataError: see `load_dataset`.
    """
    episodes = _checked(dataset, _with_orders(dataset, environment), None)
    return _joined(dataset, episodes), [episode.subtasks for episode in episodes]


def load_rewarded_episodes(
    dataset: Dataset,
    environment: gym.Env,
    max_episodes: int | None = None,
    select: Sequence[str] | None = None,
    needed: bool = True,
    successful: bool = True,
    remedy: str = "",
) -> list[Episode]:
    """Load episodes in the environment's layout, with executed actions, and rewards and ends of its task (`for_task`).

    Arguments as for `load_dataset`, and:
        needed: whether to insist on rewards; otherwise all are 0, for learning that makes its own.
        successful: whether to insist on some that are not 0 also where the environment itself judges by the states.
            Where it does not, rewards of 0 alone mean that there are none.
        remedy: what can be done about rewards that are missing, for the message.

    Raises:
        DataError: as `load_dataset` and `for_task`, or if needed rewards are missing, not finite, or all 0.
    """
    selected = _selected(dataset, environment, max_episodes, select, rewards=True)
    episodes = _checked(dataset, selected, environment)
    metadata = metadata_of(dataset)
    with about(title_of(dataset)):
        episodes = for_task(episodes, metadata, environment)
        if not needed:
            return [replace(episode, rewards=np.zeros(len(episode.actions), np.float32)) for episode in episodes]
        rewards = [episode.rewards for episode in episodes if episode.rewards is not None]
        insist = successful or not judges(environment)
        if len(rewards) < len(episodes) or (insist and not any(part.any() for part in rewards)):
            missing = "it has no rewards for this task, and learning from its transitions needs them"
            raise DataError(f"{missing}; {remedy}" if remedy else missing)
        if not all(np.isfinite(part).all() for part in rewards):
            raise DataError("a reward is not finite")
        return episodes


def load_unlabelled_episodes(
    dataset: Dataset, environment: gym.Env, max_episodes: int | None = None, select: Sequence[str] | None = None
) -> list[Episode]:
    """Load episodes in the environment's layout, with executed actions, and nothing of the task that they were for.

    Arguments as for `load_dataset`. Rewards are 0, and no end terminates.

    Raises:
        DataError: see `load_dataset`.
    """
    selected = _selected(dataset, environment, max_episodes, select, rewards=True)
    return [
        replace(episode, rewards=np.zeros(len(episode.actions), np.float32), terminated=False)
        for episode in _checked(dataset, selected, environment)
    ]


def metadata_of(dataset: Dataset) -> Mapping[str, Any]:
    """What else a stored data set says about itself, see `Reader.metadata`; empty for one in memory.

    Raises:
        DataError: see `load_dataset`.
    """
    if not isinstance(dataset, str | Stored):
        return {}
    reader, location = find_reader(_stored(dataset).name)
    return reader.metadata(location)


def observation_shapes(dataset: Dataset) -> Mapping[str, tuple[int, ...]]:
    """Shape of one observation of each key; empty where observations have no keys.

    Raises:
        DataError: see `load_dataset`.
    """
    if not isinstance(dataset, str | Stored):
        return {}
    reader, location = find_reader(_stored(dataset).name)
    return reader.shapes(location)


def load_raw_episodes(dataset: Dataset, environment: gym.Env) -> list[Episode]:
    """Everything that a data set knows of its episodes, observations in the environment's layout, actions in raw units.

    Raises:
        DataError: see `load_dataset`.
    """
    return _checked(dataset, _with_orders(dataset, environment, rewards=True), environment, scaled=False)


def observed_keys(dataset: Dataset, environment: gym.Env | None = None) -> Sequence[str]:
    """The keys of the observations that are loaded, for this environment; empty where observations have no keys.

    Raises:
        DataError: see `load_dataset`.
    """
    shapes = observation_shapes(dataset)
    return (_wanted_keys(dataset, environment) or default_keys(shapes)) if shapes else []


def title_of(dataset: Dataset) -> str:
    """How messages name a data set."""
    return f"data set {_stored(dataset).name!r}" if isinstance(dataset, str | Stored) else "data set in memory"


def _stored(dataset: str | Stored) -> Stored:
    return Stored(dataset) if isinstance(dataset, str) else dataset


def _read(
    dataset: Dataset, environment: gym.Env | None, max_episodes: int | None = None, rewards: bool = False
) -> Iterator[Episode]:
    """The episodes as they are stored, observations chosen; with rewards and terminations only if asked for."""
    keys = _wanted_keys(dataset, environment)
    for index, episode in enumerate(_as_stored(dataset, max_episodes, rewards)):
        if isinstance(episode, KeyedEpisode):
            with about(f"{title_of(dataset)}: episode {index}"):
                yield episode.choose(keys)
        elif isinstance(dataset, Stored) and dataset.observations:
            raise DataError(f"{title_of(dataset)}: its observations have no keys, so that none can be chosen")
        else:
            yield episode


def _wanted_keys(dataset: Dataset, environment: gym.Env | None) -> Sequence[str] | None:
    """What the user chose, for the data set or else for the environment; None where there is no choice."""
    if isinstance(dataset, Stored) and dataset.observations is not None:
        return dataset.observations
    chosen: Sequence[str] | None = None if environment is None else offered(environment, "observation_keys")
    return chosen


def _as_stored(
    dataset: Dataset, max_episodes: int | None = None, rewards: bool = False
) -> Iterator[Episode | KeyedEpisode]:
    if isinstance(dataset, Trajectories):
        episodes: Iterable[Episode] = (Episode(*dataset.episode(index)) for index in range(dataset.num_episodes))
        yield from islice(episodes, max_episodes)
    elif not isinstance(dataset, str | Stored):
        yield from dataset[:max_episodes]
    else:
        stored = _stored(dataset)
        reader, location = find_reader(stored.name)
        if stored.filter and not reader.takes_filter:
            raise DataError(f"{title_of(dataset)}: {reader.description} has no named parts, such as {stored.filter!r}")
        filters = {"filter": stored.filter} if stored.filter else {}
        try:
            for episode in islice(reader.read(location, max_episodes, rewards, **filters), max_episodes):
                if not isinstance(episode, Episode | KeyedEpisode):
                    raise TypeError(f"its reader gives {type(episode).__name__}, not {Episode.__module__}.Episode")
                yield episode
        except SkildError:
            raise
        except Exception as error:  # whatever a user's reader raises
            raise DataError(
                f"{title_of(dataset)} cannot be read as {reader.description}: {described(error)}"
            ) from error


def _selected(
    dataset: Dataset,
    environment: gym.Env | None,
    max_episodes: int | None,
    select: Sequence[str] | None,
    rewards: bool = False,
) -> Iterable[Episode]:
    """The episodes that `load_dataset` wants, as they are stored."""
    if select is None:
        return _read(dataset, environment, max_episodes, rewards)
    episodes = _with_orders(dataset, environment, rewards)
    with about(title_of(dataset)):
        selected = indices_of([episode.subtasks for episode in episodes], select)
    return [episodes[index] for index in selected[:max_episodes]]


def _with_orders(dataset: Dataset, environment: gym.Env | None, rewards: bool = False) -> list[Episode]:
    """All episodes as they are stored, with their `subtasks`."""
    episodes = list(_read(dataset, environment, rewards=rewards))
    with about(title_of(dataset)):
        return [
            replace(episode, subtasks=episode.subtasks or order_from_states(episode.observations, environment))
            for episode in episodes
        ]


def _checked(
    dataset: Dataset, episodes: Iterable[Episode], environment: gym.Env | None, scaled: bool = True
) -> list[Episode]:
    """The episodes as float32, in the environment's layout where there is one; actions in raw units unless `scaled`.

    Raises:
        DataError: there are none, or one is unfit; the message names data set, episode, row and column.
    """
    action_map = None if environment is None else offered(environment, "action_map")
    if action_map and "request" in metadata_of(dataset).get("skild_ray", {}):
        action_map = None  # generated in this environment, by actions in [-1, 1]
    checked = []
    for index, episode in enumerate(episodes):
        with about(f"{title_of(dataset)}: episode {index}"):
            if action_map and scaled:
                episode = _with_scaled_actions(episode, action_map)  # noqa: PLW2901
            checked.append(_fitted(episode, environment, bounded=scaled))
    if not checked:
        raise DataError(f"{title_of(dataset)}: there are no episodes")
    return checked


def _with_scaled_actions(episode: Episode, action_map: ActionMap) -> Episode:
    scaled: dict[str, Any] = {}
    for name in ("actions", "executed_actions"):
        if (raw := getattr(episode, name)) is not None:
            values = np.asarray(raw)
            arrays.require_vectors(repr(name), values.shape, values.dtype)
            scaled[name] = action_map.scale(values)
    return replace(episode, **scaled)


def _fitted(episode: Episode, environment: gym.Env | None, bounded: bool = True) -> Episode:
    given = {
        name: arrays.as_array(repr(name), values)
        for name in ("observations", "actions", "executed_actions", "rewards")
        if (values := getattr(episode, name)) is not None
    }
    arrays.require_episode(given["observations"], given["actions"])
    for name, require in (("executed_actions", arrays.require_vectors), ("rewards", arrays.require_column)):
        if name in given:
            require(repr(name), given[name].shape, given[name].dtype)
            arrays.require_equal_rows(len(given["actions"]), "'actions'", repr(name), len(given[name]))
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
        parts: dict[str, Any] = {name: np.asarray(values, np.float32) for name, values in given.items()}
    if "rewards" in parts:
        parts["rewards"] = parts["rewards"].reshape(-1)
    for name in ("observations", "actions"):
        arrays.require_finite(name, parts[name])
    if environment is not None:
        parts["observations"] = _convert(parts["observations"], environment)
        for name in ("actions", "executed_actions"):
            if name in parts:
                _check_actions(parts[name], environment, name.replace("_", " "), bounded)
    return replace(episode, **parts)


def _joined(dataset: Dataset, episodes: Sequence[Episode]) -> Trajectories:
    with about(title_of(dataset)):
        return Trajectories.from_episodes(
            [episode.observations for episode in episodes], [episode.actions for episode in episodes]
        )


def _check_actions(actions: NDArray[np.floating], environment: gym.Env, what: str, bounded: bool) -> None:
    shape = environment.action_space.shape
    if shape != actions.shape[1:]:
        wanted = " x ".join(map(str, shape or ())) or "no"
        raise DataError(f"{what} have {actions.shape[1]} dimensions, the environment's have {wanted}")
    beyond = ~(np.abs(actions) <= 1 + ACTION_TOLERANCE)  # NaN, too
    if bounded and beyond.any():
        row, column = np.argwhere(beyond)[0]
        remedy = "scale them: environment.actions: {scale: bounds} or {scale: minmax}"
        if offered(environment, "action_map"):
            remedy = "that is beyond the bounds of environment.actions: correct them, or take scale: minmax"
        raise DataError(f"{what} must be in [-1, 1]: row {row}, column {column} is {actions[row, column]:g}; {remedy}")


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
        arrays.require_finite("observations from the environment's convert_observations", observations)
    shape = environment.observation_space.shape
    if shape != observations.shape[1:]:
        wanted = " x ".join(map(str, shape or ())) or "no"
        raise DataError(f"observations have {observations.shape[1]} dimensions, the environment's have {wanted}")
    return observations
