"""The evaluation of an agent as numbers: deterministic and sampled, trained and as it started."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from skild_ray import storage
from skild_ray.artifacts import writable
from skild_ray.evaluation.policy import Agent, load_agent
from skild_ray.evaluation.rollouts import evaluate

RESULTS_FILE = "evaluation.json"
LOG_WIDTH = 130
Results = dict[str, Any]


def evaluate_agent(agent: Agent, episodes: int, seed: int, name: str) -> Results:
    """Summary of the deterministic policy, with that of the sampled one under 'sampled'."""
    results = evaluate(agent, episodes, seed, deterministic=True, name=f"{name}, deterministic")
    return results | {"sampled": evaluate(agent, episodes, seed, deterministic=False, name=f"{name}, sampled")}


def evaluate_target(target: Path, episodes: int, seed: int) -> Results:
    """Results of the agent at `target` (see `load_agent`), with those of its initial policy under 'initial'."""
    trained = evaluate_agent(load_agent(target), episodes, seed, "trained policy")
    return trained | {"initial": evaluate_agent(load_agent(target, "initial"), episodes, seed, "initial policy")}


def evaluate_run(artifact: Path, episodes: int, seed: int) -> Results:
    """`evaluate_target`, kept in the artifact's folder: an equal evaluation is read back."""
    path = artifact / RESULTS_FILE
    if path.exists():
        stored: Results = json.loads(path.read_text())
        if (stored["episodes"], stored["seed"]) == (episodes, seed):
            return stored
    results = evaluate_target(artifact, episodes, seed)
    with writable(path):
        path.write_text(json.dumps(results, indent=2))
    storage.push(path)
    return results


def show(results: Mapping[str, Any]) -> None:
    """Print the results as a table."""
    table = Table("policy", "success", "95 %", "return", "95 %", "sub-tasks", "env steps an episode", "trained for")
    for label, part in (
        ("trained, deterministic", results),
        ("trained, sampled", results["sampled"]),
        ("initial, deterministic", results["initial"]),
        ("initial, sampled", results["initial"]["sampled"]),
    ):
        table.add_row(
            label,
            f"{part['success_rate']:.2f}",
            "{:.2f} .. {:.2f}".format(*part["success_ci95"]),
            f"{part['return_mean']:.2f}",
            "{:.2f} .. {:.2f}".format(*part["return_ci95"]),
            f"{part['subtasks_mean']:.2f}",
            f"{part['episode_length_mean']:.0f}",
            f"{part['env_steps_trained']:,} env steps",
        )
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(f"{results['episodes']} episodes each, seed {results['seed']}")
    console.print(table)
