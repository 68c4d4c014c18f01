"""How well the skills of stages 1 and 2 serve the target task, before any reinforcement learning.

    python -m benchmarks.skill_model runs/kitchen --episodes 100 --json skill_model_kitchen.json

An experiment holds out two or three demonstrations, whose error is that of their hardest turns. `--unseen` takes more:

    skild-ray data generate kitchen --task kbts --episodes 60 --seed 777 --noise 0.1 --name kitchen/unseen-v0
    python -m benchmarks.skill_model runs/kitchen --unseen kitchen/unseen-v0

Four numbers, each the ceiling of something later:

- Action error of held-out demonstration windows, mean |a_hat - a|^2 over steps and dimensions, with z the mean of the
  encoder q(z | s, a) (what the decoder can express) and of the posterior q(z | s_0) (what a state tells of the skill).
- Sub-tasks solved when the posterior's mean, or a sample of it, chooses every skill.
- Sub-tasks solved when the skills that the encoder gives the demonstrations' own windows are replayed one after the
  other. The decoder sees the states that it reaches, but nobody chooses z for them: what a skill leaves behind, the
  next one begins with. The drift says how far, in standardised units, states at the ends of skills are from the
  recorded ones. The posterior, which chooses z for the state that was reached, does not accumulate it; where it does
  worse than the replay, it is the choice and not the drift that fails.
"""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.measure import check_folder, run_command, write_json
from skild_ray.algorithms.pretrained import Pretrained, load_head, load_skill_model
from skild_ray.config import Experiment, Source
from skild_ray.data.windows import WindowSampler
from skild_ray.evaluation.agent import Agent, Policy, config_in
from skild_ray.evaluation.rollouts import evaluation_env, run_episodes
from skild_ray.generation.sources import load_sources
from skild_ray.models.skill_model import SkillModel


def measure(run_dir: Path, episodes: int, seed: int, unseen: str | None) -> dict[str, Any]:
    """The numbers above for the artifacts in `run_dir`; errors also on the data set `unseen`, if there is one."""
    torch.set_num_threads(1)
    pretrained = Pretrained.open(run_dir)
    experiment = pretrained.experiment
    model, posterior = load_skill_model(pretrained.skill_prior), load_head(pretrained.skill_posterior)
    sources = load_sources(experiment.data.demonstrations, experiment, "demonstrations")
    long = [source.at_least(experiment.skill.horizon) for source in sources]
    splits = [source.split(experiment.data.validation_fraction, experiment.seed) for source in long]
    held_out = [part for _, part in splits]
    results: dict[str, Any] = {"run": str(run_dir), "episodes": episodes, "seed": seed}

    judged = {"": held_out}
    if unseen is not None:
        judged["unseen_"] = load_sources({"unseen": Source(dataset=unseen)}, experiment, "demonstrations")
    for prefix, parts in judged.items():
        states, actions = WindowSampler(parts, [1.0] * len(parts), experiment.skill.horizon, 0).all_windows(2**16)
        with torch.inference_mode():
            results[f"{prefix}encoder_mse"] = _action_mse(model, states, actions, model.encode(states, actions).mean)
            results[f"{prefix}posterior_mse"] = _action_mse(model, states, actions, posterior(states[:, 0]).mean)

    seeds = np.random.SeedSequence(seed).generate_state(episodes).tolist()
    config = config_in(run_dir, experiment)
    agent = Agent(config, config.build_module(), num_envs=experiment.evaluation.num_envs)
    env = evaluation_env(agent, episodes)
    results["subtasks"] = len(env.subtasks)
    torch.manual_seed(seed)
    policies: dict[str, Policy] = {
        "posterior_mean": lambda observed: posterior(torch.from_numpy(observed)).mean.numpy(),
        "posterior_sampled": lambda observed: posterior(torch.from_numpy(observed)).sample().numpy(),
    }
    try:
        with torch.inference_mode():
            for name, policy in policies.items():
                played = run_episodes(env, policy, seeds, name.replace("_", " "))
                results[name] = float(np.mean([episode.subtasks_solved for episode in played]))
    finally:
        env.close()
    for name, part in (("replay_trained_on", [part for part, _ in splits]), ("replay_held_out", held_out)):
        demonstrations = [source.episode(i) for source in part for i in range(source.num_episodes)][:episodes]
        solved, drift = _replay(agent, experiment, model, demonstrations, seeds)
        results |= {name: solved, f"{name}_drift": drift}
    return results


def _action_mse(model: SkillModel, states: Tensor, actions: Tensor, latents: Tensor) -> float:
    return float((model.decode(states, latents) - actions).square().mean())


def _replay(
    agent: Agent,
    experiment: Experiment,
    model: SkillModel,
    demonstrations: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
    seeds: list[int],
) -> tuple[float, list[float]]:
    """Mean number of sub-tasks that the encoder's skills solve, and the root mean square drift behind each skill.

    What is left of a demonstration behind its last full window is not replayed.
    """
    horizon, count = experiment.skill.horizon, len(demonstrations)
    skills, recorded = [], []
    for observations, actions in demonstrations:
        full = len(actions) // horizon
        windows = (
            torch.tensor(part[: full * horizon]).unflatten(0, (full, horizon)) for part in (observations, actions)
        )
        with torch.inference_mode():
            skills.append(model.encode(*windows).mean.numpy())
        recorded.append(torch.tensor(observations[horizon : full * horizon : horizon]))
    env = evaluation_env(replace(agent, num_envs=count), count)
    steps = itertools.count()

    def policy(observed: NDArray[np.float32]) -> NDArray[np.float32]:
        step = next(steps)
        return np.stack([own[min(step, len(own) - 1)] for own in skills])

    try:
        played = run_episodes(env, policy, seeds[:count], "replay of the encoder's skills")
    finally:
        env.close()
    squared: list[list[float]] = []
    for episode, states in zip(played, recorded, strict=True):
        reached = torch.from_numpy(episode.states[1 : 1 + len(states)])
        gap = model.standardize(reached) - model.standardize(states[: len(reached)])
        squared.append(gap.square().mean(-1).tolist())
    longest = min(map(len, squared))
    drift = np.sqrt(np.mean([row[:longest] for row in squared], axis=0))
    return float(np.mean([episode.subtasks_solved for episode in played])), drift.round(3).tolist()


def show(results: dict[str, Any]) -> None:
    """Print the numbers as two tables."""
    console = Console()
    columns = {"": "action MSE, held-out demonstrations", "unseen_": "unseen data set"}
    columns = {prefix: label for prefix, label in columns.items() if f"{prefix}encoder_mse" in results}
    errors = Table("skill from", *columns.values(), title_justify="left", title=results["run"])
    for label, name in (("encoder q(z | s, a)", "encoder_mse"), ("posterior q(z | s)", "posterior_mse")):
        errors.add_row(label, *(f"{results[prefix + name]:.5f}" for prefix in columns))
    console.print(errors)
    solved = Table(
        "skills chosen by", "episodes", f"sub-tasks of {results['subtasks']}", "drift behind skills 1, 5, 10, last"
    )
    for name in ("posterior_mean", "posterior_sampled"):
        solved.add_row(name.replace("_", ", "), str(results["episodes"]), f"{results[name]:.2f}", "")
    for name, label in (("replay_trained_on", "encoder, replayed"), ("replay_held_out", "encoder, replayed, held out")):
        drift = results[f"{name}_drift"]
        marks = ", ".join(f"{drift[i]:.2f}" for i in (0, 4, 9, len(drift) - 1) if i < len(drift))
        solved.add_row(label, "one each", f"{results[name]:.2f}", marks)
    console.print(solved)


def main(
    run: Annotated[Path, typer.Argument(help="folder of a run with finished stages 1 to 3")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="of the posterior, once by its mean and once sampled")] = 100,
    seed: Annotated[
        int, typer.Option(min=0, help="seed of the episodes; other than that on which a run chosen by them is reported")
    ] = 2000,
    unseen: Annotated[
        str | None, typer.Option(help="data set of more demonstrations, none trained on: errors on them, too")
    ] = None,
) -> None:
    """Print how well the skills fit the demonstrations and what they solve without reinforcement learning."""
    check_folder(json_file)
    results = measure(run, episodes, seed, unseen)
    show(results)
    if json_file:
        write_json(json_file, results)


if __name__ == "__main__":
    run_command(main)
