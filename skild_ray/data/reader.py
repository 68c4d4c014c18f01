"""What a format of stored data sets is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skild_ray.data.episode import Episode
from skild_ray.data.keyed import KeyedEpisode


def _nothing(name: str) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Reader:
    """Reads the data sets of one format.

    Attributes:
        description: what such a data set is, for messages, such as "a D4RL-style .hdf5 file".
        matches: `matches(name)` says whether a data set of this name (an id or a path) has this format.
        read: `read(name, max_episodes, rewards)` gives the episodes in order; the first `max_episodes` unless that is
            None. Without `rewards`, observations, actions and subtasks are enough; with it, everything that an
            `Episode` has and the format knows. Values need no checks: they are checked after reading. Where the format
            has observations of several kinds it gives `KeyedEpisode`s, of which the user chooses.
        metadata: `metadata(name)` gives what else is known of a data set, under Minari's keys: `env_spec` (JSON),
            `author`, `algorithm_name`. Default: nothing.
        shapes: `shapes(name)` gives the shape of one observation of each key, where observations have keys.
        takes_filter: whether `read` has a fourth argument `filter`: a part of the data set by name, such as "train".
    """

    description: str
    matches: Callable[[str], bool]
    read: Callable[..., Iterable[Episode | KeyedEpisode]]
    metadata: Callable[[str], Mapping[str, Any]] = _nothing
    shapes: Callable[[str], Mapping[str, tuple[int, ...]]] = _nothing
    takes_filter: bool = False
