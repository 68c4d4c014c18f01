"""Throughput of acting and of learning, from the raw simulator to the full training loop, in one run.

    python -m benchmarks.throughput maze --json throughput_maze.json

Models have random weights and the default sizes; nothing needs to be trained before.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.measure import (
    alternate,
    check_folder,
    cores,
    medians,
    run_command,
    show_rates,
    show_ratios,
    write_json,
)
from benchmarks.simulators import World, simulator_measurements
from benchmarks.training_loop import TrainingLoop
from benchmarks.untrained import publish_untrained
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.cluster import connect
from skild_ray.config import Experiment, SkillModelSettings, load_experiment

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
EXPERIMENT_OF: dict[World, str] = {
    "maze": "maze.yaml",
    "kitchen": "kitchen_teleop.yaml",
    "office": "office.yaml",
    "scene": "ogbench_scene4.yaml",
    "cube-double": "ogbench_cube_double2.yaml",
    "puzzle-3x3": "ogbench_puzzle3x3_4.yaml",
}
SAMPLES_PER_SKILL_STEP = 128.0
UNLIMITED = 10**12

LABELS = {
    "raw_env_steps_per_s": "raw simulator, env steps, one core",
    "raw_original_env_steps_per_s": "raw simulator with gymnasium-robotics' model, env steps, one core",
    "gym_env_steps_per_s": "Gymnasium loop, env steps, one core",
    "skill_env_steps_per_s": "SkillVectorEnv, env steps, one core",
    "sampling_only_env_steps_per_s": "SkiLD, sampling alone, env steps",
    "learning_only_env_steps_per_s": "SkiLD, learning alone, env steps it keeps up with",
    "loop_env_steps_per_s": "SkiLD, full loop, env steps",
    "loop_updates_per_s": "SkiLD, full loop, updates",
    "learning_only_updates_per_s": "SkiLD, learning alone, updates",
    "rllib_updates_per_s": "RLlib learner, updates",
    "bare_updates_per_s": "bare torch loop, updates",
}


def measured_experiment(world: World, runs: str, runners: int | None, envs: int | None, seconds: float) -> Experiment:
    """The world's experiment, the reference's sample reuse, the default network sizes, without an end or a warm-up."""
    experiment = load_experiment(EXPERIMENTS / EXPERIMENT_OF[world])
    default = SkiLDSettings()
    algorithm = experiment.algorithm.model_copy(
        update={
            "samples_per_skill_step": SAMPLES_PER_SKILL_STEP,
            "total_env_steps": UNLIMITED,
            "warmup_skill_steps": 1,
            "critic_warmup_updates": 0,
            "critic_hidden": default.critic_hidden,
            "critic_layers": default.critic_layers,
            "learn_alphas": False,
            "discriminator_updates": 0.0,
        }
    )
    rollout = experiment.rollout
    num_envs = rollout.num_envs_per_env_runner if envs is None else envs
    # A fragment of an experiment's few environments is too short for many.
    fragment = max(rollout.decisions_per_fragment, num_envs)
    rollout = rollout.model_copy(
        update={
            "num_env_runners": rollout.num_env_runners if runners is None else runners,
            "num_envs_per_env_runner": num_envs,
            "decisions_per_fragment": fragment,
        }
    )
    return experiment.model_copy(
        update={
            "runs": runs,
            "skill": SkillModelSettings(),
            "algorithm": algorithm,
            "rollout": rollout,
            "progress": experiment.progress.model_copy(update={"report_interval_s": max(seconds / 4, 0.1)}),
        }
    )


def measure(world: World, experiment: Experiment, seconds: float, rounds: int) -> dict[str, object]:
    """Print and return all rates and ratios; the return value is what `--json` writes."""
    publish_untrained(experiment)
    connect()
    loop = TrainingLoop(experiment)
    try:
        rates = alternate(
            [
                *simulator_measurements(world, experiment, experiment.rollout.num_envs_per_env_runner),
                loop.sampling_only,
                loop.learning_only,
                loop.loop,
                loop.bare_updates,
                loop.rllib_updates,
            ],
            seconds,
            rounds,
        )
        samples_per_skill_step = round(loop.samples_per_skill_step, 1)
        env_steps_per_skill_step = loop.env_steps_per_skill_step
    finally:
        loop.close()
    median = medians(rates)
    ratios = _ratios(median, experiment)
    setting = {
        "num_env_runners": experiment.rollout.num_env_runners,
        "num_envs_per_env_runner": experiment.rollout.num_envs_per_env_runner,
        "decisions_per_fragment": experiment.rollout.decisions_per_fragment,
        "learner_threads": experiment.resources.learner_threads,
        "batch_size": experiment.algorithm.batch_size,
    }
    Console().print(", ".join(f"{name} {value}" for name, value in setting.items()))
    show_rates(f"{world}: {rounds} rounds of {seconds:g} s on {cores()} cores", LABELS, rates)
    show_ratios(ratios)
    return {
        **median,
        "samples_per_skill_step": samples_per_skill_step,
        "env_steps_per_skill_step": env_steps_per_skill_step,
        "cores": cores(),
        "world": world,
        **setting,
        "ratios": ratios,
        "rounds": rates,
    }


def _ratios(rates: dict[str, float], experiment: Experiment) -> dict[str, float]:
    raw, original = rates["raw_env_steps_per_s"], rates.get("raw_original_env_steps_per_s")
    loop, skill = rates["loop_env_steps_per_s"], rates["skill_env_steps_per_s"]
    sampling, learning = rates["sampling_only_env_steps_per_s"], rates["learning_only_env_steps_per_s"]
    # Each half alone may use more cores than it has beside the other: an env step costs so many core-seconds in all.
    runners, threads = max(1, experiment.rollout.num_env_runners), experiment.resources.learner_threads
    core_seconds = min(runners, cores()) / sampling + min(threads, cores()) / learning
    slower_half = min(sampling, learning)
    against_original = (
        {
            "SkillVectorEnv / raw simulator with gymnasium-robotics' model": skill / original,
            "full loop / raw simulator with gymnasium-robotics' model": loop / original,
        }
        if original
        else {}
    )
    return {
        "Gymnasium loop / raw simulator": rates["gym_env_steps_per_s"] / raw,
        "SkillVectorEnv / raw simulator": skill / raw,
        "full loop / raw simulator": loop / raw,
        **against_original,
        f"full loop / {cores()} raw simulators (one a core)": loop / (cores() * raw),
        "full loop / its slower half (sampling alone, learning alone)": loop / slower_half,
        f"full loop / what its halves allow on {cores()} cores": loop / min(slower_half, cores() / core_seconds),
        "cost of an update in RLlib / in a bare torch loop": rates["bare_updates_per_s"] / rates["rllib_updates_per_s"],
    }


def main(
    world: Annotated[World, typer.Argument(help="which environment")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="of each measurement in each round")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="rounds, of which medians are taken")] = 5,
    runners: Annotated[int | None, typer.Option(min=0, help="env runners; default: the experiment's")] = None,
    envs: Annotated[int | None, typer.Option(min=1, help="environments of each; default: the experiment's")] = None,
) -> None:
    """Measure env steps/s and updates/s from the raw simulator to the full training loop."""
    check_folder(json_file)
    with tempfile.TemporaryDirectory(prefix="skild_ray_benchmark_") as runs:
        results = measure(world, measured_experiment(world, runs, runners, envs, seconds), seconds, rounds)
    if json_file:
        write_json(json_file, results)


if __name__ == "__main__":
    run_command(main)
