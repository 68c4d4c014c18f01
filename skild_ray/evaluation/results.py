"""The evaluation of an agent as numbers: deterministic and sampled, trained and as it started; and its videos."""

import contextlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from skild_ray.config import Environment, load_experiment
from skild_ray.envs.registry import make_env
from skild_ray.evaluation.agent import Agent, Which, config_in, load_agent
from skild_ray.evaluation.rollouts import Episode, play, summarise
from skild_ray.evaluation.statistics import in_words
from skild_ray.runs import storage
from skild_ray.runs.artifacts import CONFIG_FILE, writable
from skild_ray.video.film import RENDER_MODE, film
from skild_ray.video.recording import Recording

logger = logging.getLogger(__name__)

RESULTS_FILE, VIDEO_FOLDER = "evaluation.json", "videos"
LOG_WIDTH = 170
FORMAT = 2
"""Of the results; an evaluation that was kept in another one, with other intervals, is made again."""
LABELS: dict[Which, str] = {"trained": "trained", "initial": "initial", "posterior": "skill BC"}
"""The policies as tables name them."""
Results = dict[str, Any]
Known = list[tuple[Agent, NDArray[np.float32], Results]]
"""Agents that were evaluated, with the states that they met and the results."""


def evaluate_target(
    target: Path, episodes: int, seed: int, videos: int = 0, folder: Path = Path(), without_rl: bool = True
) -> Results:
    """Results of the agent at `target` (see `load_agent`), with `without_rl` those of `Agent.without_rl` by name.

    Each is the summary of the deterministic policy, with that of the sampled one under 'sampled'. With `videos`, so
    many episodes of the trained deterministic policy are filmed into `folder/videos` and described under 'videos'.
    """

    def run(agent: Agent, name: str, deterministic: bool) -> tuple[list[Episode], Results]:
        how = "deterministic" if deterministic else "sampled"
        episodes_played = play(agent, episodes, seed, deterministic, f"{name}, {how}")
        return episodes_played, summarise(episodes_played, agent.env_steps, seed)

    agent = load_agent(target)
    others = agent.without_rl() if without_rl else {}
    played, results = run(agent, "trained policy", True)
    results |= {"format": FORMAT, "sampled": run(agent, "trained policy", False)[1]}
    known: Known = []
    for which, other in others.items():
        name = f"{LABELS[which]} policy"
        if same := [result for agent, _, result in known if _same_weights(agent, other)]:
            results[which] = same[0]
            continue
        alike = [(states, result) for agent, states, result in known if _same_means(agent, other, states)]
        if not alike:
            episodes_played, mean = run(other, name, True)
            alike = [(np.concatenate([episode.states for episode in episodes_played]), mean)]
        states, mean = alike[0]
        results[which] = mean | {"sampled": run(other, name, False)[1]}
        known.append((other, states, results[which]))
    if videos:
        results["videos_wanted"] = videos
        results["videos"] = _record(played, agent.environment, videos, folder / VIDEO_FOLDER)
        film(recordings(results, folder))
    return results


def evaluate_run(artifact: Path, episodes: int, seed: int, videos: int = 0, without_rl: bool = True) -> Results:
    """`evaluate_target`, kept in the artifact's folder: an equal evaluation is read back, and videos that it lacks,
    because nothing could render them then, are made."""
    path = artifact / RESULTS_FILE
    if path.exists():
        stored: Results = json.loads(path.read_text())
        experiment = load_experiment(artifact / CONFIG_FILE)
        others = config_in(artifact.parent, experiment).without_rl() if without_rl else ()
        missing = set(others) - set(stored)
        facts = (stored.get("format"), stored["episodes"], stored["seed"], stored.get("videos_wanted", 0))
        if facts == (FORMAT, episodes, seed, videos) and not missing:
            film(recordings(stored, artifact))
            _store(artifact)
            return stored
    shutil.rmtree(artifact / VIDEO_FOLDER, ignore_errors=True)
    results = evaluate_target(artifact, episodes, seed, videos, artifact, without_rl)
    with writable(path):
        path.write_text(json.dumps(results, indent=2))
    _store(artifact)
    return results


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


def recordings(results: Results, folder: Path) -> list[Path]:
    """The recorded episodes of an evaluation that lies in `folder`; videos and key frames lie beside each."""
    return [folder / VIDEO_FOLDER / f"{entry['name']}.npz" for entry in results.get("videos", [])]


def _record(played: Sequence[Episode], environment: Environment, count: int, folder: Path) -> list[Results]:
    """Write the recordings of the most telling episodes, replacing those of the same name, and describe them."""
    with contextlib.closing(make_env(environment.id, environment.kwargs)) as env:
        if RENDER_MODE not in env.metadata.get("render_modes", ()):
            logger.warning(f"no video: environment {environment.id!r} declares no render mode {RENDER_MODE!r}")
            return []
    entries = []
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for index in most_telling(played, count):
            episode, name = played[index], f"episode_{index:03d}"
            for outdated in (folder / f"{name}.mp4", *folder.glob(f"{name}_*.jpg")):
                outdated.unlink(missing_ok=True)
            Recording(
                environment, episode.seed, episode.actions, episode.states[-1], episode.subtasks, episode.credited_at
            ).save(folder / f"{name}.npz")
            entries.append(
                {
                    "name": name,
                    "episode": index,
                    "seed": episode.seed,
                    "success": episode.success,
                    "env_steps": episode.env_steps,
                    "subtasks": list(episode.subtasks),
                    "credited_at": list(episode.credited_at),
                }
            )
    return entries


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


def policies(results: Results) -> Iterator[tuple[str, Results]]:
    """The evaluated policies that there are, by name."""
    for which, label in LABELS.items():
        both = results if which == "trained" else results.get(which)
        if both:
            yield f"{label}, deterministic", both
        if both and "sampled" in both:
            yield f"{label}, sampled", both["sampled"]


def show(results: Results) -> None:
    """Print the results as tables."""
    several = "subtasks" in results
    table = Table("policy", "success", "return", *(["sub-tasks"] if several else []), "env steps an episode", "trained")
    for label, part in policies(results):
        solved = [in_words(part["subtasks_mean"], part["subtasks_ci95"])] if several else []
        table.add_row(
            label,
            in_words(part["success_rate"], part["success_ci95"]),
            in_words(part["return_mean"], part["return_ci95"]),
            *solved,
            f"{part['episode_length_mean']:.0f}",
            f"{part['env_steps_trained']:,} env steps",
        )
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(
        f"{results['episodes']} episodes each, seed {results['seed']}; brackets are 95 % intervals. Training starts "
        "from the initial policy; skill BC is the posterior with its own sigma."
    )
    console.print(table)
    if "subtasks" in results:
        console.print(_subtask_table(list(policies(results))))


def _subtask_table(parts: Sequence[tuple[str, Results]]) -> Table:
    """Completion rate of each sub-task (rows) by each policy (columns), with its 95 % interval."""
    table = Table("completed in order", *(label for label, _ in parts))
    for index, subtask in enumerate(parts[0][1]["subtasks"]):
        rates = [part["subtasks"][index] for _, part in parts]
        table.add_row(subtask["name"], *(in_words(rate["rate"], rate["ci95"]) for rate in rates))
    return table
