"""What a format of stored data sets is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skild_ray.data.episode import Episode


def _no_metadata(name: str) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Reader:
    """Reads the data sets of one format.

    Attributes:
        description: what such a data set is, for messages, such as "a D4RL-style .hdf5 file".
        matches: `matches(name)` says whether a data set of this name (an id or a path) has this format.
        read: `read(name, max_episodes, rewards)` gives the episodes in order; the first `max_episodes` unless that is
            None. Without `rewards`, observations, actions and subtasks are enough; with it, everything that an
            `Episode` has and the format knows. Values need no checks: they are checked after reading.
        metadata: `metadata(name)` gives what else is known of a data set, under Minari's keys: `env_spec` (JSON),
            `author`, `algorithm_name`. Default: nothing.
    """

    description: str
    matches: Callable[[str], bool]
    read: Callable[[str, int | None, bool], Iterable[Episode]]
    metadata: Callable[[str], Mapping[str, Any]] = _no_metadata
