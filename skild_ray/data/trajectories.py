"""Trajectories in memory: flat arrays and the ends of the episodes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skild_ray.data.arrays import (
    as_array,
    as_marks,
    ends_of_episodes,
    require_column,
    require_episode,
    require_equal_rows,
    require_vectors,
)
from skild_ray.errors import DataError, about


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Episodes one after another. Row i holds a state and the action taken in it.

    The state after the last action of an episode is not part of it, because no action follows.

    Attributes:
        observations: float32 [N, observation_dim].
        actions: float32 [N, action_dim].
        ends: int64 [E], row after the last one of each episode; the last entry is N.

    Raises:
        DataError: on wrong shapes or dtypes, no or empty episodes, or a value that is not finite; the message names
            episode, row within the episode and column.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    ends: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("observations", "actions"):
            array = getattr(self, name)
            if array.dtype != np.float32 or array.ndim != 2:
                raise DataError(f"{name} must be float32 [N, dim], got {array.dtype} {list(array.shape)}")
        if len(self.observations) != len(self.actions):
            raise DataError(f"{len(self.observations)} observations but {len(self.actions)} actions")
        if self.ends.dtype != np.int64 or self.ends.ndim != 1:
            raise DataError(f"ends must be int64 [E], got {self.ends.dtype} {list(self.ends.shape)}")
        if not len(self.ends):
            raise DataError("there are no episodes")
        empty = np.flatnonzero(self.lengths <= 0)
        if len(empty):
            raise DataError(f"episode {empty[0]} has no transitions")
        if self.ends[-1] != len(self.actions):
            raise DataError(f"the last episode ends at row {self.ends[-1]} of {len(self.actions)}")
        for name in ("observations", "actions"):
            self._require_finite(name)

    @classmethod
    def from_arrays(
        cls,
        observations: ArrayLike,
        actions: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        terminals: ArrayLike | None = None,
    ) -> "Trajectories":
        """From arrays of all episodes, one after another, as D4RL has them, and either `lengths` or `terminals`.

        Args:
            observations: numbers [N, observation_dim].
            actions: numbers [N, action_dim], each taken in the observation of its row.
            lengths: [E], rows of each episode, N in all.
            terminals: [N], 1 or true in the last row of each episode, whatever ended it (D4RL: `terminals | timeouts`).
                Rows after the last mark are an episode.

        Raises:
            DataError: the arrays have other shapes, or do not go with each other.
        """
        states, taken = as_array("'observations'", observations), as_array("'actions'", actions)
        for name, array in (("observations", states), ("actions", taken)):
            require_vectors(repr(name), array.shape, array.dtype)
        if (lengths is None) == (terminals is None):
            raise DataError("give either 'lengths' or 'terminals', which say where episodes end")
        if lengths is not None:
            counts = np.asarray(lengths)
            if counts.ndim != 1 or counts.dtype.kind not in "iu":
                raise DataError(f"'lengths' must be whole numbers [E], got {counts.dtype} {list(counts.shape)}")
            ends = np.cumsum(counts, dtype=np.int64)
        else:
            marks = np.asarray(terminals)
            require_column("'terminals'", marks.shape, marks.dtype)
            require_equal_rows(len(taken), "'actions'", "'terminals'", len(marks))
            ends = ends_of_episodes("'terminals'", as_marks("'terminals'", marks.reshape(-1)))
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
            return cls(states.astype(np.float32), taken.astype(np.float32), ends.astype(np.int64))

    @classmethod
    def from_episodes(cls, observations: Sequence[ArrayLike], actions: Sequence[ArrayLike]) -> "Trajectories":
        """Join arrays or lists of each episode: T (or T + 1, the last is dropped) observations and T actions.

        Raises:
            DataError: if there are no episodes, they differ in dimensions, or a pair does not fit together.
        """
        if not len(actions):
            raise DataError("there are no episodes")
        if len(observations) != len(actions):
            raise DataError(f"observations are of {len(observations)} episodes, actions of {len(actions)}")
        pairs: list[tuple[NDArray, NDArray]] = []
        for index, (states, taken) in enumerate(zip(observations, actions, strict=True)):
            with about(f"episode {index}"):
                pair = as_array("'observations'", states), as_array("'actions'", taken)
                pairs.append(pair)
                require_episode(*pair)
                for name, array, of_first in zip(("observations", "actions"), pair, pairs[0], strict=True):
                    if array.shape[1] != of_first.shape[1]:
                        raise DataError(f"{name!r} has shape {list(array.shape)}, expected [T, {of_first.shape[1]}]")
        lengths = [len(taken) for _, taken in pairs]
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
            return cls(
                np.concatenate([states[: len(taken)] for states, taken in pairs], dtype=np.float32),
                np.concatenate([taken for _, taken in pairs], dtype=np.float32),
                np.cumsum(lengths, dtype=np.int64),
            )

    @classmethod
    def concatenate(cls, parts: Sequence["Trajectories"]) -> "Trajectories":
        """All episodes of all parts, in order."""
        if not parts:
            raise DataError("there are no trajectories to concatenate")
        for name in ("observation_dim", "action_dim"):
            if len({getattr(part, name) for part in parts}) > 1:
                raise DataError(f"{name} differs: {', '.join(str(getattr(part, name)) for part in parts)}")
        return cls(
            np.concatenate([part.observations for part in parts]),
            np.concatenate([part.actions for part in parts]),
            np.cumsum(np.concatenate([part.lengths for part in parts]), dtype=np.int64),
        )

    @property
    def num_episodes(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Transitions of each episode, [E]."""
        return np.diff(self.ends, prepend=np.int64(0))

    @property
    def observation_dim(self) -> int:
        return self.observations.shape[1]

    @property
    def action_dim(self) -> int:
        return self.actions.shape[1]

    def __len__(self) -> int:
        """Transitions in all episodes."""
        return len(self.actions)

    def episode(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Observations [T, observation_dim] and actions [T, action_dim] of one episode, as views."""
        rows = self._rows(index)
        return self.observations[rows], self.actions[rows]

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> "Trajectories":
        """These episodes, in this order."""
        if not len(indices):
            raise DataError("there are no episodes")
        rows = np.concatenate([np.arange(r.start, r.stop) for r in map(self._rows, indices)])
        lengths = self.lengths[np.asarray(indices)]
        return Trajectories(self.observations[rows], self.actions[rows], np.cumsum(lengths, dtype=np.int64))

    def at_least(self, horizon: int) -> "Trajectories":
        """The episodes of `horizon` or more transitions, those that have a window.

        Raises:
            DataError: if there are none.
        """
        long = np.flatnonzero(self.lengths >= horizon)
        return self if len(long) == self.num_episodes else self.select(long)

    def split(self, validation_fraction: float, seed: int) -> tuple["Trajectories", "Trajectories"]:
        """Random split into training and validation episodes, at least one each.

        Raises:
            DataError: if there is only one episode.
        """
        if self.num_episodes < 2:
            raise DataError("a single episode cannot be split into training and validation: add another one")
        held_out = min(max(round(self.num_episodes * validation_fraction), 1), self.num_episodes - 1)
        order = np.random.default_rng(seed).permutation(self.num_episodes)
        return self.select(np.sort(order[held_out:])), self.select(np.sort(order[:held_out]))

    def window_starts(self, horizon: int) -> NDArray[np.int64]:
        """Rows at which a window of `horizon` transitions of one episode begins, [W], ascending.

        Raises:
            DataError: if no episode is that long.
        """
        lengths = self.lengths
        counts = np.maximum(lengths - horizon + 1, 0)
        total = int(counts.sum())
        if not total:
            raise DataError(
                f"no episode is as long as the horizon of {horizon} transitions: the longest has {lengths.max()}"
            )
        # Window w of an episode starts w rows after the episode: shift a running count to each episode's first row.
        shift = (self.ends - lengths) - (np.cumsum(counts) - counts)
        return np.arange(total, dtype=np.int64) + np.repeat(shift, counts)

    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of shapes and contents."""
        digest = hashlib.sha256()
        for array in (self.observations, self.actions, self.ends):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def _rows(self, index: int) -> slice:
        if not -self.num_episodes <= index < self.num_episodes:
            raise IndexError(f"episode {index} of {self.num_episodes}")
        index = index % self.num_episodes
        return slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))

    def _require_finite(self, name: str) -> None:
        array = getattr(self, name)
        finite = np.isfinite(array)
        if finite.all():
            return
        row, column = np.argwhere(~finite)[0]
        episode = int(np.searchsorted(self.ends, row, side="right"))
        value = array[row, column]
        row -= self._rows(episode).start
        raise DataError(f"episode {episode}: {name} must be finite: row {row}, column {column} is {value}")
