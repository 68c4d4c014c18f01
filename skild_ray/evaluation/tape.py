"""Tapes: recorded demonstrations that are replayed blindly, as a yardstick for what copying alone solves."""

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from skild_ray.config import Experiment
from skild_ray.data.episode import Episode
from skild_ray.envs import make_env
from skild_ray.envs.conventions import subtasks_of
from skild_ray.errors import ConfigError
from skild_ray.generation.collect import Request, collect

MAX_ATTEMPTS = 10
"""Attempts of the demonstrator at a tape."""


@dataclass(frozen=True)
class Replays:
    """Scores of tapes in the evaluation's episodes.

    Attributes:
        scores: [tapes, episodes], sub-tasks solved.
        maximum: the largest score, the number of sub-tasks or 1.
    """

    scores: NDArray[np.float64]
    maximum: int


def replay_tapes(experiment: Experiment, tapes: int, episodes: int) -> Replays:
    """Record that many noise-free demonstrations, and replay each in that many of the evaluation's episodes.

    A tape is the actions of a demonstration, executed open loop: no observation is read.

    Raises:
        ConfigError: if no demonstrations are generated, or the demonstrator solves too few episodes to make the tapes.
    """
    recorded = _record(noise_free(experiment), tapes)
    env = make_env(experiment.environment.id, experiment.environment.arguments)
    try:
        seeds = evaluation_seeds(experiment, episodes)
        scores = np.array([[_replay(env, tape, seed) for seed in seeds] for tape in recorded])
        return Replays(scores, max(1, len(subtasks_of(env))))
    finally:
        env.close()


def evaluation_seeds(experiment: Experiment, episodes: int) -> Sequence[int]:
    """The seeds of the first episodes of the experiment's evaluation."""
    seeds: list[int] = np.random.SeedSequence(experiment.evaluation.seed).generate_state(episodes).tolist()
    return seeds


def noise_free(experiment: Experiment) -> Request:
    """What generates the experiment's demonstrations, without noise on the actions.

    Raises:
        ConfigError: none are generated.
    """
    generated = [source.generate for source in experiment.data.demonstrations.values() if source.generate]
    if not generated:
        raise ConfigError("none of data.demonstrations is generated, so no tapes can be recorded; name a 'generate'")
    source = generated[0].model_copy(update={"action_noise": 0.0})
    return Request.of(source, experiment.environment, experiment.seed)


def _record(request: Request, tapes: int) -> list[NDArray[np.float32]]:
    """Actions of the first solved episodes that the request defines."""
    found: list[NDArray[np.float32]] = []
    for index in range(MAX_ATTEMPTS * tapes):
        found += [episode.actions for episode in collect(request, index, 1) if isinstance(episode, Episode)]
        if len(found) == tapes:
            return found
    raise ConfigError(f"expert {request.expert!r} solved {len(found)} of {MAX_ATTEMPTS * tapes} episodes, not {tapes}")


def _replay(env: gym.Env, actions: NDArray[np.float32], seed: int) -> float:
    """Score of one episode whose actions are given; it ends with them."""
    env.reset(seed=seed)
    for action in actions:
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break
    return float(info["subtasks_solved"])
