"""The evaluation of an agent as numbers: deterministic and sampled, trained and as it started."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from skild_ray.artifacts import writable
from skild_ray.config import Experiment, load_experiment
from skild_ray.evaluation.policy import Agent, Which, load_agent
from skild_ray.evaluation.rollouts import evaluate

RESULTS_FILE = "evaluation.json"
LOG_WIDTH = 130
Results = dict[str, Any]


def evaluate_agent(agent: Agent, episodes: int, seed: int, name: str) -> Results:
    """Summary of the deterministic policy, with that of the sampled one under 'sampled'."""
    results = evaluate(agent, episodes, seed, deterministic=True, name=f"{name}, deterministic")
    return results | {"sampled": evaluate(agent, episodes, seed, deterministic=False, name=f"{name}, sampled")}


def without_rl(experiment: Experiment) -> tuple[Which, ...]:
    """The policies without reinforcement learning that are evaluated beside the trained one.

    'initial' is where training started; 'posterior', skill behavioural cloning, is apart from it only where training
    started from the posterior with another sigma. SAC starts from nothing.
    """
    if experiment.sac:
        return ()
    settings = experiment.algorithm
    rescaled = settings.policy_init == "posterior" and settings.policy_init_scale != 1
    return ("initial", "posterior") if rescaled else ("initial",)


def evaluate_target(target: Path, episodes: int, seed: int) -> Results:
    """Results of the agent at `target` (see `load_agent`), with those of `without_rl` under their names."""
    agent = load_agent(target)
    results = evaluate_agent(agent, episodes, seed, "trained policy")
    for which in without_rl(agent.experiment):
        results[which] = evaluate_agent(load_agent(target, which), episodes, seed, f"{which} policy")
    return results


def evaluate_run(artifact: Path, episodes: int, seed: int) -> Results:
    """`evaluate_target`, kept in the artifact's folder: an equal evaluation is read back."""
    path = artifact / RESULTS_FILE
    if path.exists():
        stored: Results = json.loads(path.read_text())
        missing = set(without_rl(load_experiment(artifact / "config.yaml"))) - set(stored)
        if (stored["episodes"], stored["seed"]) == (episodes, seed) and not missing:
            return stored
    results = evaluate_target(artifact, episodes, seed)
    with writable(path):
        path.write_text(json.dumps(results, indent=2))
    return results


def show(results: Mapping[str, Any]) -> None:
    """Print the results as a table."""
    table = Table("policy", "success", "95 %", "return", "95 %", "sub-tasks", "env steps an episode", "trained for")
    policies = {"trained": results} | {which: results[which] for which in ("initial", "posterior") if which in results}
    for name, both in policies.items():
        for label, part in ((f"{name}, deterministic", both), (f"{name}, sampled", both["sampled"])):
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
