"""Plays an agent's policies, deterministic and sampled, trained and as they started, and films some episodes."""

import contextlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skild_ray.config import Environment, load_experiment
from skild_ray.envs.registry import make_env
from skild_ray.evaluation.agent import Agent, Which, config_in, load_agent
from skild_ray.evaluation.results import (
    FORMAT,
    LABELS,
    RESULTS_FILE,
    VIDEO_FOLDER,
    Evaluation,
    PolicySummary,
    Summary,
    Video,
    read_evaluation,
)
from skild_ray.evaluation.rollouts import Episode, play, summarise
from skild_ray.runs import storage
from skild_ray.runs.artifacts import CONFIG_FILE, writable
from skild_ray.video.film import RENDER_MODE, film
from skild_ray.video.recording import Recording

logger = logging.getLogger(__name__)


def evaluate_target(
    target: Path, episodes: int, seed: int, videos: int = 0, folder: Path = Path(), without_rl: bool = True
) -> Evaluation:
    """The evaluation of the agent at `target` (see `load_agent`), with `without_rl` of those of `Agent.without_rl` too.

    `videos` episodes of the trained, deterministic policy are filmed into `folder/videos`.
    """

    def run(agent: Agent, name: str, deterministic: bool) -> tuple[list[Episode], Summary]:
        how = "deterministic" if deterministic else "sampled"
        episodes_played = play(agent, episodes, seed, deterministic, f"{name}, {how}")
        return episodes_played, summarise(episodes_played, agent.env_steps, seed)

    agent = load_agent(target)
    others = agent.without_rl() if without_rl else {}
    played, mean = run(agent, "trained policy", True)
    policies: dict[Which, PolicySummary] = {"trained": PolicySummary(mean, run(agent, "trained policy", False)[1])}
    known: list[tuple[Agent, NDArray[np.float32], PolicySummary]] = []  # agents with the states that they met
    for which, other in others.items():
        name = f"{LABELS[which]} policy"
        if same := [policy for agent, _, policy in known if _same_weights(agent, other)]:
            policies[which] = same[0]
            continue
        alike = [(states, p.deterministic) for agent, states, p in known if _same_means(agent, other, states)]
        if not alike:
            episodes_played, mean = run(other, name, True)
            alike = [(np.concatenate([episode.states for episode in episodes_played]), mean)]
        states, mean = alike[0]
        policies[which] = PolicySummary(mean, run(other, name, False)[1])
        known.append((other, states, policies[which]))
    recorded = _record(played, agent.environment, videos, folder / VIDEO_FOLDER) if videos else []
    film([video.recording(folder) for video in recorded])
    return Evaluation(policies, videos, tuple(recorded))


def evaluate_run(artifact: Path, episodes: int, seed: int, videos: int = 0, without_rl: bool = True) -> Evaluation:
    """`evaluate_target`, kept in the artifact's folder: an equal evaluation is read back, and videos that it lacks,
    because nothing could render them then, are made."""
    if stored := read_evaluation(artifact):
        experiment = load_experiment(artifact / CONFIG_FILE)
        others = config_in(artifact.parent, experiment).without_rl() if without_rl else ()
        missing = set(others) - set(stored.policies)
        facts = (stored.format, stored.episodes, stored.seed, stored.videos_wanted)
        if facts == (FORMAT, episodes, seed, videos) and not missing:
            film([video.recording(artifact) for video in stored.videos])
            _store(artifact)
            return stored
    shutil.rmtree(artifact / VIDEO_FOLDER, ignore_errors=True)
    evaluation = evaluate_target(artifact, episodes, seed, videos, artifact, without_rl)
    path = artifact / RESULTS_FILE
    with writable(path):
        path.write_text(json.dumps(evaluation.to_json(), indent=2))
    _store(artifact)
    return evaluation


def _same_weights(first: Agent, second: Agent) -> bool:
    """Whether two agents of one algorithm choose the same, sampled or not."""
    mine, theirs = (agent.module.get_state(inference_only=True) for agent in (first, second))
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def _same_means(first: Agent, second: Agent, states: NDArray[np.float32]) -> bool:
    """Whether two deterministic policies choose the same in `states`, all that the first one met: then so do both."""
    mine, theirs = (agent.policy(deterministic=True, seed=0)(states) for agent in (first, second))
    return np.array_equal(mine, theirs)


def _store(artifact: Path) -> None:
    """Copy the results to where the run belongs, where that is a URI; the videos first, which the results name."""
    for path in (*sorted((artifact / VIDEO_FOLDER).glob("*")), artifact / RESULTS_FILE):
        storage.push(path)


def _record(played: Sequence[Episode], environment: Environment, count: int, folder: Path) -> list[Video]:
    """Write the recordings of the most telling episodes, replacing those of the same name, and describe them."""
    with contextlib.closing(make_env(environment.id, environment.arguments)) as env:
        if RENDER_MODE not in env.metadata.get("render_modes", ()):
            logger.warning(f"no video: environment {environment.id!r} declares no render mode {RENDER_MODE!r}")
            return []
    videos: list[Video] = []
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for index in most_telling(played, count):
            episode, name = played[index], f"episode_{index:03d}"
            for outdated in (folder / f"{name}.mp4", *folder.glob(f"{name}_*.jpg")):
                outdated.unlink(missing_ok=True)
            Recording(
                environment, episode.seed, episode.actions, episode.states[-1], episode.subtasks, episode.credited_at
            ).save(folder / f"{name}.npz")
            videos.append(
                Video(
                    name=name,
                    episode=index,
                    seed=episode.seed,
                    success=episode.success,
                    env_steps=episode.env_steps,
                    subtasks=episode.subtasks,
                    credited_at=episode.credited_at,
                )
            )
    return videos


def most_telling(episodes: Sequence[Episode], count: int) -> list[int]:
    """Which episodes to look at: the median success (of all, where there is none), the worst, the best, the next worst.

    Better is to solve more sub-tasks, to succeed, to earn more, to be faster, in this order.
    """

    def quality(index: int) -> tuple[int, bool, float, int]:
        episode = episodes[index]
        return episode.subtasks_solved, episode.success, episode.episode_return, -episode.env_steps

    ranking = sorted(range(len(episodes)), key=quality)
    typical = [index for index in ranking if episodes[index].success] or ranking
    preferred = (typical[len(typical) // 2], ranking[0], ranking[-1], *ranking)
    return list(dict.fromkeys(preferred))[:count]
