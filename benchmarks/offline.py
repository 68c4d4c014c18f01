"""Speed of the three offline stages: a bare loop, the same stage as a Ray Train job, and seconds to a given error.

    python -m benchmarks.offline experiments/maze.yaml --target-mse 0.06 --json offline_maze.json

The experiment's data sets are used, and made where they do not exist yet. Nothing is left behind but them.
"""

import csv
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.measure import check_folder, cores, rate, run_command, write_json
from skild_ray.cluster import connect
from skild_ray.config import Experiment, Training, load_experiment
from skild_ray.data.trajectories import Trajectories
from skild_ray.generation.sources import load_sources
from skild_ray.offline.loop import problem_of, train_stage
from skild_ray.offline.problem import Inputs, Problem
from skild_ray.runs.artifacts import Artifact
from skild_ray.stages import OFFLINE, SKILD_INPUTS, DataKind

UNITS = {
    "skill_prior": "windows",
    "skill_posterior": "windows",
    "demo_discriminator": "states a class",
}
VALIDATIONS = 6

Rows = list[dict[str, float]]


class OfflineBenchmark:
    """The stages of one experiment, each at its own batch size and number of torch threads."""

    def __init__(self, experiment: Experiment, seconds: float, iterations: int) -> None:
        self.experiment, self._seconds, self._iterations = experiment, seconds, iterations
        self._task_agnostic = self._load("task_agnostic")
        self._demonstrations = self._load("demonstrations")
        self._artifacts: dict[str, Artifact] = {}

    def job(self, stage: str, iterations: int | None = None) -> Rows:
        """Metrics of the stage as a Ray Train job, of `iterations` or as many as the benchmark was given."""
        settings: Training = getattr(self.experiment, stage)
        if iterations is None:
            iterations = self._iterations
            interval = max(1, iterations // VALIDATIONS)
            settings = settings.model_copy(update={"validation_interval": interval, "patience": None})
        settings = settings.model_copy(update={"iterations": iterations})
        experiment = self.experiment.model_copy(update={stage: settings})
        artifact = train_stage(
            experiment, stage, self._task_agnostic, self._demonstrations, self._inputs(stage), f"benchmark-{iterations}"
        )
        self._artifacts[stage] = artifact
        with (artifact.path / "metrics.csv").open(newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def job_rate(self, rows: Rows) -> float:
        """Samples a second of all workers; the first row, in which everything is new, does not count."""
        rates = [row["samples_per_s"] for row in rows[1:] or rows]
        return statistics.median(rates)

    def bare_rate(self, stage: str) -> float:
        """Samples a second of batch, losses, backward pass and optimiser step in this process."""
        inputs = Inputs(
            self.experiment,
            self._task_agnostic,
            self._demonstrations,
            {artifact.stage: artifact.weights() for artifact in self._inputs(stage)},
        )
        threads = torch.get_num_threads()
        torch.set_num_threads(self.experiment.resources.cpus_per_train_worker)
        try:
            step = _GradientStep(problem_of(stage)(inputs, self.experiment.seed))
            step()  # the first one allocates
            return rate(step, self._seconds)
        finally:
            torch.set_num_threads(threads)

    def _load(self, kind: DataKind) -> list[Trajectories]:
        sources = getattr(self.experiment.data, kind)
        return load_sources(sources, self.experiment, kind, self.experiment.resources.data_workers)

    def _inputs(self, stage: str) -> Sequence[Artifact]:
        return [self._artifacts[name] for name in OFFLINE[stage].inputs]


class _GradientStep:
    """A gradient step of a problem as a function; it returns how many samples it took."""

    def __init__(self, problem: Problem) -> None:
        self._problem, self._settings = problem, problem.settings
        self._module = problem.module.train()
        self._optimisers = problem.optimisers()

    def __call__(self) -> int:
        losses = self._problem.losses(self._module, self._problem.batch())
        self._module.zero_grad(set_to_none=True)
        losses.total.backward()
        if self._settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._module.parameters(), self._settings.gradient_clip, foreach=True)
        for optimiser in self._optimisers:
            optimiser.step()
        return self._settings.batch_size


def measure(experiment: Experiment, seconds: float, iterations: int, target_mse: float | None) -> dict[str, object]:
    """Print and return the rates of all stages, and the time stage 1 takes to `target_mse`."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # Ray's default delays a job's start by seconds
    connect()
    benchmark = OfflineBenchmark(experiment, seconds, iterations)
    results: dict[str, object] = {}
    table = Table("stage", "unit", "bare / s", "Train job / s", "ratio", title_justify="left")
    table.title = f"{experiment.name}: {cores()} cores, {experiment.resources.cpus_per_train_worker} torch threads"
    for stage in SKILD_INPUTS:
        before = benchmark.bare_rate(stage)
        job = benchmark.job_rate(benchmark.job(stage))
        bare = (before + benchmark.bare_rate(stage)) / 2  # around the job: what else the machine does may change
        table.add_row(stage, UNITS[stage], f"{bare:,.0f}", f"{job:,.0f}", f"{job / bare:.3f}")
        results |= {f"{stage}_bare_per_s": bare, f"{stage}_job_per_s": job, f"{stage}_job_to_bare": job / bare}
    Console().print(table)
    results["cores"] = cores()
    if target_mse is not None:
        rows = benchmark.job("skill_prior", experiment.skill_prior.iterations)
        results |= time_to(rows, target_mse)
    return results


def time_to(rows: Rows, target_mse: float) -> dict[str, object]:
    """When the held-out action error first was at most `target_mse`, validations included, Ray's start not."""
    reached = next((row for row in rows if row["val_action_mse"] <= target_mse), None)
    best = min(row["val_action_mse"] for row in rows)
    said = f"{reached['seconds']:.0f} s, {reached['iteration']:.0f} iterations" if reached else "not reached"
    total = rows[-1]["seconds"]
    print(f"skill_prior: held-out action error {target_mse:g}: {said}; lowest {best:.4f} in {total:.0f} s")
    return {
        "target_mse": target_mse,
        "seconds_to_target": reached["seconds"] if reached else None,
        "lowest_mse": best,
        "seconds": total,
    }


def main(
    experiment: Annotated[Path, typer.Argument(help="experiment file")] = Path("experiments/maze.yaml"),
    json_file: Annotated[Path | None, typer.Option("--json", help="write the results here")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="of a bare loop; two are taken a stage")] = 10.0,
    iterations: Annotated[int, typer.Option(min=1, help="of each Ray Train job")] = 600,
    target_mse: Annotated[
        float | None, typer.Option(help="train stage 1 in full and say when its held-out action error was this low")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key")] = None,
) -> None:
    """Measure windows/s of the offline stages, bare and as Ray Train jobs."""
    check_folder(json_file)
    with tempfile.TemporaryDirectory(prefix="skild_ray_benchmark_") as runs:
        loaded = load_experiment(experiment, [*(overrides or ()), f"runs={runs}"])
        results = measure(loaded, seconds, iterations, target_mse)
    if json_file:
        write_json(json_file, results)


if __name__ == "__main__":
    run_command(main)
