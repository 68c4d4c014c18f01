"""Replay of transitions with n-step returns assembled when they are drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = Mapping[str, NDArray]

TRANSITION = ("obs", "next_obs", "actions", "rewards", "k", "terminated")
"""Columns of a transition as it is stored."""


def draw_batches(
    sources: Sequence[tuple["Replay", int]], updates: int, names: Sequence[str] | None = None
) -> dict[str, NDArray]:
    """`updates` batches one after another, each with a fixed number of transitions of every replay.

    Args:
        sources: replays, and how many transitions of a batch come from each.
        updates: number of batches.
        names: columns wanted; default: all.
    """
    parts = [
        {name: drawn[name].reshape(updates, count, *drawn[name].shape[1:]) for name in names or drawn}
        for replay, count in sources
        if count
        for drawn in (replay.sample(updates * count),)
    ]
    joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return {name: column.reshape(-1, *column.shape[2:]) for name, column in joined.items()}


def learner_shares(column: NDArray, updates: int, learners: int) -> NDArray:
    """A drawn column with its rows in the order in which RLlib deals them out: all of one learner's, then the next's.

    Learner l of L gets rows l, l + L, l + 2 L, ... of every batch, so that what was drawn from one source, and stands
    together in a batch, is divided evenly between the learners, up to a row.
    """
    dealt = column.reshape(updates, -1, learners, *column.shape[1:])
    return np.ascontiguousarray(np.moveaxis(dealt, 2, 0)).reshape(column.shape)


def episodes_of(recent: Rows) -> list[dict[str, NDArray]]:
    """The transitions of each episode, in order, of what `Replay.recent` gave."""
    following = recent["following"].tolist()
    episode = list(range(len(following)))  # a name for each: the row of its first transition
    for row, later in enumerate(following):
        if later >= 0:
            episode[later] = episode[row]
    order = np.argsort(episode, kind="stable")
    ends = np.flatnonzero(np.diff(np.array(episode)[order])) + 1
    return [{name: recent[name][rows] for name in TRANSITION} for rows in np.split(order, ends)]


class Replay:
    """Ring buffer of semi-Markov transitions (s, a, r, s', terminated, k) in flat arrays; `a` may be a skill.

    Each row knows the row that follows it in its episode, so a draw walks up to n transitions ahead and needs no
    fragment to be complete when it is stored. With gamma_j = discount^(k_j / H) for the j-th transition of the walk, a
    draw of (s_0, a_0) gives

        n_step_states   s_0 .. s_{n-1}                                    [B, n, observation_dim]
        n_step_weights  w_i = gamma_0 .. gamma_{i-1}, 0 after the walk's end   [B, n]
        returns         sum_i w_i r_i                                     [B]
        next_obs        state after the last transition of the walk       [B, observation_dim]
        bootstrap       gamma_0 .. gamma_last (1 - terminated_last)       [B]

    so that the n-step target is returns + bootstrap * V(next_obs); time limits bootstrap, terminations do not.

    Args:
        capacity: transitions kept; memory is claimed as it fills.
        columns: width of every stored column besides the ones above, by name; a draw gives each at s_0.
        walk_actions: whether a draw also has
            n_step_actions  a_0 .. a_{n-1}, repeated after the walk's end  [B, n, action_dim]
        later: whether a draw also has, for targets that count something at every state that the walk enters,
            later_states    s_1 .. s_{n-1}, next_obs                      [B, n, observation_dim]
            later_weights   w_1 .. w_{n-1}, bootstrap                     [B, n]
            later_<name>    each of `columns` at later_states             [B, n, width]
            Rows then have each of `columns` for their next state, too, as `next_<name>`.
    """

    def __init__(
        self,
        capacity: int,
        observation_dim: int,
        action_dim: int,
        *,
        n_step: int,
        discount: float,
        horizon: int,
        seed: int,
        columns: Mapping[str, int],
        walk_actions: bool = False,
        later: bool = False,
    ) -> None:
        self.capacity, self.n_step, self.discount, self.horizon = capacity, n_step, discount, horizon
        self._columns, self._walk_actions, self._later = tuple(columns), walk_actions, later
        widths = {"obs": observation_dim, "next_obs": observation_dim, "actions": action_dim, **columns}
        if later:
            widths |= {f"next_{name}": width for name, width in columns.items()}
        self._data: dict[str, NDArray] = {
            name: np.zeros((capacity, width), np.float32) for name, width in widths.items()
        }
        for name in ("rewards", "gamma", "terminated"):
            self._data[name] = np.zeros(capacity, np.float32)
        self._data["k"] = np.zeros(capacity, np.int32)
        self._data["following"] = np.full(capacity, -1, np.int64)
        self._added = 0
        self._tails: dict[str, int] = {}
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    @property
    def added(self) -> int:
        """Transitions stored since the beginning, overwritten ones included."""
        return self._added

    def add(self, episode_id: str, rows: Rows, ended: bool) -> None:
        """Store consecutive transitions of one episode, which follow those stored of it before.

        Args:
            episode_id: tells episodes apart.
            rows: obs, next_obs, actions, rewards, k, terminated, and the extra columns; equal first axes.
            ended: whether the episode ends with the last of them.
        """
        count = len(rows["rewards"])
        if count == 0:
            return
        places = (self._added + np.arange(count)) % self.capacity
        for name, column in self._data.items():
            if name not in ("gamma", "following"):
                column[places] = rows[name]
        self._data["gamma"][places] = self.discount ** (rows["k"] / self.horizon)
        following = self._data["following"]
        following[places[:-1]] = places[1:]
        following[places[-1]] = -1
        tail = self._tails.pop(episode_id, None)
        if tail is not None and tail >= self._added + count - self.capacity:
            following[tail % self.capacity] = places[0]
        self._added += count
        if not ended:
            self._tails[episode_id] = self._added - 1

    def sample(self, size: int) -> dict[str, NDArray]:
        """Draw `size` transitions uniformly with replacement; see the class for what comes back."""
        data = self._data
        start = self._rng.integers(len(self), size=size)
        rows = np.empty((size, self.n_step), np.int64)
        weights = np.zeros((size, self.n_step), np.float32)
        row, last = start, start
        alive, factor = np.ones(size, bool), np.ones(size, np.float32)
        for step in range(self.n_step):
            rows[:, step] = row
            weights[:, step] = np.where(alive, factor, 0.0)
            factor = np.where(alive, factor * data["gamma"][row], factor)
            last = np.where(alive, row, last)
            following = data["following"][row]
            alive = alive & (following >= 0)
            row = np.where(alive, following, row)
        drawn = {
            "obs": data["obs"][start],
            "actions": data["actions"][start],
            "returns": (weights * data["rewards"][rows]).sum(1),
            "n_step_states": data["obs"][rows],
            "n_step_weights": weights,
            "next_obs": data["next_obs"][last],
            "bootstrap": factor * (1.0 - data["terminated"][last]),
            **{name: data[name][start] for name in self._columns},
        }
        if self._walk_actions:
            drawn["n_step_actions"] = data["actions"][rows]
        if self._later:
            drawn["later_weights"] = np.concatenate([weights[:, 1:], drawn["bootstrap"][:, None]], 1)
            for name in ("obs", *self._columns):
                at_end = data[f"next_{name}"][last]
                later = np.concatenate([data[name][rows[:, 1:]], at_end[:, None]], 1)
                drawn["later_states" if name == "obs" else f"later_{name}"] = later
        return drawn

    def largest_return(self) -> float:
        """max_t |G_t| over the stored transitions, G_t = r_t + gamma_t G_{t+1}, which ends with what is stored."""
        rows = self.recent()
        if not rows["rewards"].any():
            return 0.0
        gamma = self._data["gamma"][self._places(len(self))]
        returns = rows["rewards"].astype(np.float64)
        for row in reversed(np.flatnonzero(rows["following"] >= 0)):
            returns[row] += gamma[row] * returns[rows["following"][row]]
        return float(np.abs(returns).max())

    def sample_columns(self, size: int, *names: str) -> list[NDArray]:
        """What is stored, by name, of `size` transitions that are drawn as those of `sample` are."""
        rows = self._rng.integers(len(self), size=size)
        return [self._data[name][rows] for name in names]

    def recent(self, limit: int | None = None) -> dict[str, NDArray]:
        """Transitions, oldest first; at most the last `limit`: obs, next_obs, actions, rewards, terminated, k.

        `following` is the row of an episode's next transition, -1 where there is none. `episodes_of` reverses this.
        """
        size = len(self) if limit is None else min(limit, len(self))
        places = self._places(size)
        rows = {name: self._data[name][places] for name in TRANSITION}
        following = self._data["following"][places]
        rows["following"] = np.where(following < 0, -1, (following - (self._added - size)) % self.capacity)
        return rows

    def _places(self, size: int) -> NDArray:
        """Where the last `size` transitions are, oldest first."""
        return np.arange(self._added - size, self._added) % self.capacity

    def forget_open_episodes(self) -> None:
        """Expect no continuation of the episodes that have not ended: their runners are gone."""
        self._tails.clear()

    def get_state(self) -> dict[str, Any]:
        """Contents, positions and random state; only rows that are in use."""
        return {
            "data": {name: column[: len(self)].copy() for name, column in self._data.items()},
            "added": self._added,
            "tails": dict(self._tails),
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        for name, column in state["data"].items():
            self._data[name][: len(column)] = column
        self._added, self._tails = state["added"], dict(state["tails"])
        self._rng.bit_generator.state = state["rng"]
