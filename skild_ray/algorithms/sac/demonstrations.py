"""Demonstrations as transitions of the environment's own actions."""

import hashlib
from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from skild_ray.algorithms.transitions import Rows
from skild_ray.config import Source
from skild_ray.data.episode import Episode
from skild_ray.data.formats import load_rewarded_episodes


def load_demonstrations(sources: Sequence[Source], env: gym.Env) -> list[Rows]:
    """The transitions of each episode of stored data sets, as `episode_rows` gives those of an env runner.

    Raises:
        DataError: a data set is missing, has no rewards, or does not fit the environment.
    """
    return [
        demonstration_rows(episode)
        for source in sources
        for episode in load_rewarded_episodes(source.dataset or "", env, source.max_episodes, source.select)
    ]


def demonstration_rows(episode: Episode) -> Rows:
    """Transitions of one episode: obs, next_obs, actions, rewards, k, terminated; [T, ...] each.

    Where the source lacks the state after the last action, that transition stays if it terminated, for then nothing is
    asked of its next state, and is dropped otherwise.
    """
    states, count = np.asarray(episode.observations, np.float32), len(episode.actions)
    if len(states) == count:
        states = np.concatenate([states, states[-1:]])
        count -= not episode.terminated
    terminated = np.zeros(count, np.float32)
    terminated[-1:] = episode.terminated
    assert episode.rewards is not None
    return {
        "obs": states[:count],
        "next_obs": states[1 : count + 1],
        "actions": np.asarray(episode.actions[:count], np.float32),
        "rewards": np.asarray(episode.rewards[:count], np.float32),
        "k": np.ones(count, np.int64),
        "terminated": terminated,
    }


def demonstrations_fingerprint(demonstrations: Sequence[Rows]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all transitions."""
    digest = hashlib.sha256()
    for rows in demonstrations:
        for name, column in rows.items():
            digest.update(f"{name}{column.shape}".encode())
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()[:16]
