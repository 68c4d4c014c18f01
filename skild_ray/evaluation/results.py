"""The evaluation of an agent as numbers: deterministic and sampled, trained and as it started; and its videos."""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from skild_ray.config import Environment, Experiment, load_experiment
from skild_ray.envs.registry import make_env
from skild_ray.evaluation.agent import Agent, Which, load_agent
from skild_ray.evaluation.rollouts import Episode, play, summarise
from skild_ray.evaluation.statistics import in_words
from skild_ray.runs import storage
from skild_ray.runs.artifacts import writable
from skild_ray.video.film import RENDER_MODE, film
from skild_ray.video.recording import Recording

RESULTS_FILE, VIDEO_FOLDER = "evaluation.json", "videos"
LOG_WIDTH = 170
FORMAT = 2
"""Of the results; an evaluation that was kept in another one, with other intervals, is made again."""
LABELS: dict[Which, str] = {"trained": "trained", "initial": "initial", "posterior": "skill BC"}
"""The policies as tables name them."""
Results = dict[str, Any]


def policies_without_rl(experiment: Experiment) -> tuple[Which, ...]:
    """The policies without reinforcement learning that are evaluated beside the trained one.

    'initial' is the policy that training starts from: what reinforcement learning adds is what the trained one solves
    beyond it. 'posterior' is skill behavioural cloning, where training starts from the posterior: it has the initial
    policy's mean and its own sigma, where `policy_init_scale` is a factor on that. SAC starts from nothing.
    """
    if experiment.sac:
        return ()
    return ("initial", "posterior") if experiment.algorithm.policy_init == "posterior" else ("initial",)


def evaluate_target(
    target: Path, episodes: int, seed: int, videos: int = 0, folder: Path = Path(), without_rl: bool = True
) -> Results:
    """Results of the agent at `target` (see `load_agent`), `without_rl` with those of `policies_without_rl` by name.

    Each is the summary of the deterministic policy, with that of the sampled one under 'sampled'. With `videos`, so
    many episodes of the trained deterministic policy are filmed into `folder/videos` and described under 'videos'.
    """

    def run(agent: Agent, name: str, deterministic: bool) -> tuple[list[Episode], Results]:
        how = "deterministic" if deterministic else "sampled"
        episodes_played = play(agent, episodes, seed, deterministic, f"{name}, {how}")
        return episodes_played, summarise(episodes_played, agent.env_steps, seed)

    agent = load_agent(target)
    wanted = policies_without_rl(agent.experiment) if without_rl else ()
    others = {which: load_agent(target, which) for which in wanted}
    played, results = run(agent, "trained policy", True)
    results |= {"format": FORMAT, "sampled": run(agent, "trained policy", False)[1]}
    for which, other in others.items():
        if which == "posterior" and agent.experiment.algorithm.policy_init_scale == 1:
            results[which] = results["initial"]
            continue
        name = f"{LABELS[which]} policy"
        mean = results["initial"] if which == "posterior" else run(other, name, True)[1]
        results[which] = mean | {"sampled": run(other, name, False)[1]}
    if videos:
        results["videos_wanted"] = videos
        results["videos"] = _record(played, agent.experiment.environment, videos, folder / VIDEO_FOLDER)
        film(recordings(results, folder))
    return results


def evaluate_run(artifact: Path, episodes: int, seed: int, videos: int = 0, without_rl: bool = True) -> Results:
    """`evaluate_target`, kept in the artifact's folder: an equal evaluation is read back, and videos that it lacks,
    because nothing could render them then, are made."""
    path = artifact / RESULTS_FILE
    if path.exists():
        stored: Results = json.loads(path.read_text())
        others = policies_without_rl(load_experiment(artifact / "config.yaml")) if without_rl else ()
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
