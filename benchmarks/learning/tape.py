"""The tape test: how much of a task recorded demonstrations solve when they are replayed blindly.

    python -m benchmarks.learning.tape experiments/kitchen.yaml --json tape.json

A tape is the actions of one noise-free demonstration, executed open loop: no observation is read. The tapes come from
the experiment's demonstrator on other seeds; the episodes are those of the experiment's evaluation. Where tapes solve
the task, a result only shows how exactly a demonstration was copied. The demonstrator's own result on the same episodes
is the yardstick. The unit is that of the world's score: sub-tasks where there are several, else success.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measure import check_folder, run_command, write_json
from skild_ray.config import Experiment, load_experiment
from skild_ray.envs import make_env
from skild_ray.evaluation.tape import evaluation_seeds, noise_free, replay_tapes
from skild_ray.generation.collect import prepared
from skild_ray.worlds.expert import Expert
from skild_ray.worlds.named import load_expert


@dataclass(frozen=True)
class TapeTest:
    """Scores over the evaluation's episodes.

    Attributes:
        tapes: mean score of each tape.
        demonstrator: score of the demonstrator in each episode.
        maximum: the largest score, the number of sub-tasks or 1.
    """

    tapes: list[float]
    demonstrator: list[float]
    maximum: int

    @property
    def results(self) -> dict[str, object]:
        """What `--json` writes: means over episodes, and over tapes or of the best of them."""
        return {
            "tape_mean": float(np.mean(self.tapes)),
            "tape_best": max(self.tapes),
            "demonstrator_mean": float(np.mean(self.demonstrator)),
            "maximum": self.maximum,
            "tapes": self.tapes,
            "demonstrator_solved": float(np.mean([score == self.maximum for score in self.demonstrator])),
            "episodes": len(self.demonstrator),
        }


def tape_test(experiment: Experiment, tapes: int, episodes: int) -> TapeTest:
    """Record that many tapes, and play each, and the demonstrator, in that many of the evaluation's episodes.

    Raises:
        ConfigError: see `replay_tapes`.
    """
    replays = replay_tapes(experiment, tapes, episodes)
    request = noise_free(experiment)
    make_expert = partial(load_expert(request.expert), **prepared(request))
    env = make_env(experiment.environment.id, experiment.environment.arguments)
    try:
        demonstrator = [_demonstrate(env, make_expert, seed) for seed in evaluation_seeds(experiment, episodes)]
        return TapeTest(replays.scores.mean(axis=1).tolist(), demonstrator, replays.maximum)
    finally:
        env.close()


def _demonstrate(env: gym.Env, make_expert: Callable[..., Expert], seed: int) -> float:
    """Score of the demonstrator in one episode."""
    observation, _ = env.reset(seed=seed)
    expert = make_expert(env, np.random.default_rng(seed))
    expert.reset(observation)
    while True:
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        if terminated or truncated:
            return float(info["subtasks_solved"])


def show(test: TapeTest) -> None:
    """Print the scores."""
    unit = "sub-tasks" if test.maximum > 1 else "success"
    table = Table("replayed blindly", f"{unit} of {test.maximum}", title_justify="left")
    table.title = f"{len(test.demonstrator)} episodes of the evaluation"
    for index, mean in enumerate(test.tapes):
        table.add_row(f"demonstration {index}", f"{mean:.2f}")
    table.add_row("mean", f"{np.mean(test.tapes):.2f}")
    table.add_row("best", f"{max(test.tapes):.2f}")
    table.add_row("the demonstrator itself", f"{np.mean(test.demonstrator):.2f}", end_section=True)
    Console().print(table)


def main(
    experiment: Annotated[str, typer.Argument(help="experiment file")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
    tapes: Annotated[int, typer.Option(min=1, help="demonstrations to replay")] = 5,
    episodes: Annotated[int | None, typer.Option(min=1, help="default: as many as the evaluation has")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key")] = None,
) -> None:
    """Replay demonstrations blindly in the evaluation's episodes."""
    check_folder(json_file)
    loaded = load_experiment(experiment, overrides or [])
    test = tape_test(loaded, tapes, episodes or loaded.evaluation.episodes)
    show(test)
    if json_file:
        write_json(json_file, test.results)


if __name__ == "__main__":
    run_command(main)
