"""Episodes whose observations are several arrays, each under a key, until they are chosen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skild_ray.data.arrays import require_equal_rows
from skild_ray.data.episode import Episode
from skild_ray.errors import DataError

OBSERVATION_KEY = "observation"
"""Of goal environments: what is observed, beside what is wanted and what is achieved."""


@dataclass(frozen=True, eq=False)
class KeyedEpisode:
    """An episode as formats with many kinds of observations store it.

    Attributes:
        shapes: of one observation of each key: `(d,)` of a vector, `()` of a number, three dimensions of an image. Keys
            of nested groups are joined by `/`.
        read: the observations of a key, [T + 1, ...] or [T, ...].
        complete: the episode with the observations that were chosen, [T + 1, d] or [T, d].
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], NDArray]
    complete: Callable[[NDArray], Episode]

    def choose(self, keys: Sequence[str] | None = None) -> Episode:
        """The episode with the observations of these keys, side by side in this order.

        Args:
            keys: default: see `default_keys`.

        Raises:
            DataError: there is no such key, or it has images; or keys have different numbers of rows.
        """
        parts = []
        for key in default_keys(self.shapes) if keys is None else keys:
            if key not in self.shapes:
                raise DataError(f"there are no observations {key!r}; there are {described_keys(self.shapes)}")
            if len(self.shapes[key]) > 1:
                raise DataError(f"observations {key!r} are {_form(self.shapes[key])}, and images are not read yet")
            values = self.read(key)
            parts.append(values.reshape(len(values), -1))
            require_equal_rows(len(parts[0]), "the first key", f"observations {key!r}", len(values))
        return self.complete(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


def chosen(episode: Episode | KeyedEpisode) -> Episode:
    """An episode with its default observations, see `KeyedEpisode.choose`."""
    return episode.choose() if isinstance(episode, KeyedEpisode) else episode


def default_keys(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The key `observation` where there is one, else all keys of vectors and numbers in alphabetical order.

    Raises:
        DataError: there are images only, or nothing.
    """
    if OBSERVATION_KEY in shapes:
        return [OBSERVATION_KEY]
    keys = sorted(key for key, shape in shapes.items() if len(shape) < 2)
    if not keys:
        what = f"only images, which are not read yet: {described_keys(shapes)}" if shapes else "no observations"
        raise DataError(f"there are {what}")
    return keys


def described_keys(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Keys with the form of their observations, for people."""
    return _listed(f"{key} ({_form(shape)})" for key, shape in sorted(shapes.items()))


def _form(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape or (1,)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
