"""A long training in which env runners are killed: does it stand still, does it leak, does it still learn?

    python -m benchmarks.soak experiments/maze.yaml --minutes 30 --json soak.json
    python -m benchmarks.soak experiments/maze.yaml --minutes 30 --kill-every 0 --json undisturbed.json

The stages before must be finished in the experiment's run folder (`skild-ray pipeline`); nothing is written there.
"""

import itertools
import random
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.env_runner_processes import MIB, env_runner_processes, kill, memory_mib
from benchmarks.measure import check_folder, run_command, write_json
from benchmarks.throughput import UNLIMITED
from benchmarks.trace import Trace, replay_bytes
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.cluster import connect
from skild_ray.config import Experiment, load_experiment

REPORT_S = 0.5


def soaked_experiment(experiment: Experiment, runners: int) -> Experiment:
    """The experiment without an end, with so many env runners and iterations short enough to see a standstill."""
    update = {
        "algorithm": experiment.algorithm.model_copy(update={"total_env_steps": UNLIMITED}),
        "rollout": experiment.rollout.model_copy(update={"num_env_runners": runners}),
        "progress": experiment.progress.model_copy(update={"report_interval_s": REPORT_S}),
    }
    return experiment.model_copy(update=update)


def soak(experiment: Experiment, minutes: float, kill_every_s: float, sample_every_s: float) -> dict[str, Any]:
    """Train for so long; every `kill_every_s` seconds (0: never) a random env runner's process is killed.

    Returns:
        longest_stall_s: longest time between two arrivals of experience.
        memory_growth: of the driver from a third of the time to the end, in which the replay has its known part.
        samples: every `sample_every_s`: seconds, env_steps, success of the latest episodes, memory.
    """
    connect()
    algo = SkiLDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, SkiLD)
    driver, rng = psutil.Process(), random.Random(experiment.seed)
    samples: list[dict[str, float]] = []
    trace = Trace(algo)
    kills, next_kill = 0, kill_every_s

    def watch() -> None:
        nonlocal kills, next_kill
        seconds = time.monotonic() - begin
        if kill_every_s and next_kill <= seconds < 60 * minutes and (running := env_runner_processes()):
            kills, next_kill = kills + 1, seconds + kill_every_s
            kill(rng.choice(running))
        if seconds >= sample_every_s * len(samples):
            samples.append(_sample(algo, driver) | {"seconds": round(seconds, 1)})

    try:
        begin = trace.run(0.0)  # the first experience: now the clock runs
        end = trace.run(60 * minutes, watch)
        return {
            "minutes": round((end - begin) / 60, 2),
            "kills": kills,
            **algo.counts,
            **algo.faults,
            "env_steps_per_s": round(trace.rate(begin, end), 1),
            "longest_stall_s": round(trace.longest_gap(begin, end), 2),
            "success": samples[-1].get("success"),
            "memory_growth": round(_growth(samples, "uss_mib"), 4),
            "memory_growth_beside_replay": round(_growth(samples, "uss_mib", "replay_mib"), 4),
            "samples": samples,
        }
    finally:
        algo.stop()


def _sample(algo: SkiLD, driver: psutil.Process) -> dict[str, float]:
    sample = {"env_steps": algo.counts["env_steps"], "replay_mib": replay_bytes(algo) / MIB} | memory_mib(driver)
    if latest := algo._recent.get("success"):
        sample["success"] = sum(latest) / len(latest)
    return sample


def _growth(samples: list[dict[str, float]], name: str, without: str | None = None) -> float:
    values = [sample[name] - (sample[without] if without else 0.0) for sample in samples]
    return values[-1] / values[len(values) // 3] - 1.0


def show(results: dict[str, Any]) -> None:
    """Print the results, and samples of the training at ten times."""
    table = Table("", "", title_justify="left")
    for name, value in results.items():
        if name != "samples":
            table.add_row(name.replace("_", " "), "none" if value is None else f"{value:,.4g}")
    Console().print(table)
    samples = results["samples"]
    columns = list(dict.fromkeys(itertools.chain.from_iterable(samples)))
    table = Table(*(name.replace("_", " ") for name in columns))
    for sample in samples[:: max(1, len(samples) // 10)]:
        table.add_row(*(f"{sample[name]:,.4g}" if name in sample else "" for name in columns))
    Console().print(table)


def main(
    experiment_file: Annotated[Path, typer.Argument(help="experiment whose stages before the last are finished")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, as of skild-ray")] = None,
    minutes: Annotated[float, typer.Option(min=0.01)] = 30.0,
    kill_every_s: Annotated[float, typer.Option("--kill-every", min=0, help="seconds; 0: nothing is killed")] = 60.0,
    runners: Annotated[int, typer.Option(min=1, help="env runners")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
) -> None:
    """Train for some minutes while env runners are killed."""
    check_folder(json_file)
    experiment = soaked_experiment(load_experiment(experiment_file, overrides or ()), runners)
    results = soak(experiment, minutes, kill_every_s, sample_every_s=10.0)
    show(results)
    if json_file:
        write_json(json_file, results)


if __name__ == "__main__":
    run_command(main)
