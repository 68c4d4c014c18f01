"""Data sets of any format as Minari data sets."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from skild_ray.data.episode import Episode
from skild_ray.data.formats import (
    Dataset,
    Stored,
    load_raw_episodes,
    metadata_of,
    observation_shapes,
    observed_keys,
    title_of,
)
from skild_ray.data.minari_store import MinariWriter, dataset_exists
from skild_ray.data.orders import describe_orders
from skild_ray.envs.conventions import offered
from skild_ray.errors import DataError
from skild_ray.interruption import Interrupted, interrupted
from skild_ray.progress import TaskProgress

logger = logging.getLogger(__name__)

BATCH = 32
"""Episodes that are written at once: an import that was stopped resumes after the last batch."""


def import_dataset(dataset: Dataset, minari_id: str, environment: gym.Env) -> int:
    """Store a data set of any format as a Minari data set in the environment's own layout, actions in raw units.

    Where the format lacks the last state of an episode, the last action is dropped, because Minari wants one state more
    than actions. Missing rewards become 0. The orders of `load_with_orders` become metadata of the episodes. What is
    dropped is logged. An import that was stopped resumes when it is started again with the same data.

    Args:
        dataset: see `load_dataset`.
        minari_id: of the new data set, like `namespace/name-v0`.
        environment: gives the layout, and a specification for Minari.

    Returns:
        The number of episodes stored.

    Raises:
        DataError: as `load_dataset`, or if there is a data set of this id, or it cannot be written.
    """
    if dataset_exists(minari_id):
        raise DataError(f"there is a Minari data set {minari_id!r} already: choose another id or delete it")
    episodes = load_raw_episodes(dataset, environment)
    kept = [episode for episode in map(_complete, episodes) if len(episode.actions)]
    if not kept:
        raise DataError(
            f"{title_of(dataset)}: none of its {len(episodes):,} episodes has a transition: that takes an action and "
            "the states before and after it, and this format lacks the state after the last action"
        )
    _say_what_is_dropped(dataset, environment, episodes, kept)
    actions = offered(environment, "raw_action_space") or environment.action_space
    writer = MinariWriter(
        minari_id,
        environment.observation_space,
        actions,
        _metadata(dataset, kept),
        environment.spec,
        resumable=_fingerprint(kept),
    )
    done = 0
    try:
        with writer, TaskProgress(f"import {minari_id}", len(kept), "episodes", start=writer.written) as progress:
            for done in range(writer.written, len(kept), BATCH):
                writer.append(kept[done : done + BATCH])
                progress.update(min(done + BATCH, len(kept)))
    except (Interrupted, SystemError) as error:
        stopped = f"{minari_id}: stopped at {done:,} of {len(kept):,} episodes; the same command resumes from there"
        raise interrupted(error, stopped) or error from None
    return len(kept)


def _complete(episode: Episode) -> Episode:
    """The transitions of which the state after the action is known."""
    length = min(len(episode.actions), len(episode.observations) - 1)
    if length == len(episode.actions):
        return episode
    return replace(
        episode,
        actions=episode.actions[:length],
        executed_actions=None if episode.executed_actions is None else episode.executed_actions[:length],
        rewards=None if episode.rewards is None else episode.rewards[:length],
        terminated=False,  # the last transition went with its action
    )


def _say_what_is_dropped(
    dataset: Dataset, environment: gym.Env, episodes: Sequence[Episode], kept: Sequence[Episode]
) -> None:
    title, of = title_of(dataset), f"of {len(episodes):,} episodes"
    if len(kept) < len(episodes):
        logger.warning(f"{title}: {len(episodes) - len(kept):,} {of} have no transition, left out")
    cut = sum(len(episode.actions) == len(episode.observations) for episode in episodes)
    if cut:
        logger.warning(f"{title}: the last action of {cut:,} {of} is dropped, since the state after it is not stored")
    taken = observed_keys(dataset, environment)
    if left := sorted(observation_shapes(dataset).keys() - taken):
        logger.warning(f"{title}: observations that are not taken: {', '.join(left)}")
    if unpaid := sum(episode.rewards is None for episode in kept):
        logger.warning(f"{title}: {unpaid:,} {of} have no rewards, which become 0")


def _metadata(dataset: Dataset, kept: Sequence[Episode]) -> Mapping[str, Any]:
    known = metadata_of(dataset)
    source = dataset if isinstance(dataset, str) else dataset.name if isinstance(dataset, Stored) else "arrays"
    return {
        "description": f"Imported from {source}.{describe_orders(episode.subtasks for episode in kept)}",
        "author": known.get("author", {"unknown"}),
        "algorithm_name": known.get("algorithm_name", "unknown"),
    }


def _fingerprint(episodes: Sequence[Episode]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all that is written."""
    digest = hashlib.sha256()
    for episode in episodes:
        facts = episode.terminated, episode.seed, episode.subtasks
        digest.update(repr(facts).encode())
        for array in (episode.observations, episode.actions, episode.rewards, episode.executed_actions):
            digest.update(repr(None if array is None else array.shape).encode())
            digest.update(b"" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
