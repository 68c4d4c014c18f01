"""What a sweep found: its trials ranked, as a table, and the best configuration as an experiment file."""

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ray.tune import ResultGrid
from ray.tune.result import DONE
from rich.console import Console
from rich.table import Table

from skild_ray.config import to_yaml, with_values
from skild_ray.errors import reason
from skild_ray.evaluation.statistics import bootstrap_mean, in_words
from skild_ray.runs.artifacts import writable
from skild_ray.tune.offline import trial_folder
from skild_ray.tune.sweep import Sweep, Values
from skild_ray.tune.trial import RESULT_FILE

BEST_FILE = "best.yaml"
FINISHED, STOPPED, UNFINISHED = "finished", "stopped early", "unfinished"
LOG_WIDTH = 160


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    trial: str
    values: Values
    """What it was trained with, at the end, by key."""
    score: float
    """The metric of its last report; NaN if it has none."""
    env_steps: int
    ended: str
    """`FINISHED`; `STOPPED`, by the scheduler; `UNFINISHED`, as the sweep was; or the reason why it failed."""

    @property
    def failed(self) -> bool:
        return self.ended not in (FINISHED, STOPPED, UNFINISHED)

    @property
    def configuration(self) -> tuple[tuple[str, Any], ...]:
        """What trials of one configuration with other seeds have in common."""
        return tuple((key, str(value)) for key, value in self.values.items() if key != "seed")


@dataclass(frozen=True)
class Configuration:
    """The trials that differ in their seeds only, the best first.

    A failed trial cannot be left out of the mean: the seeds that survive are the lucky ones. It has no worst score to
    count with either, as a loss has no upper bound. So a configuration with a failed trial is disqualified: it ranks
    below all configurations without one.
    """

    trials: Sequence[Outcome]
    missing: int
    """Seeds of the sweep that it has no trial for yet."""

    @property
    def scores(self) -> list[float]:
        """Of the trials that did not fail."""
        return [trial.score for trial in self.trials if math.isfinite(trial.score) and not trial.failed]

    @property
    def failures(self) -> list[str]:
        """The reasons of those that did."""
        return [trial.ended for trial in self.trials if trial.failed]

    @property
    def open(self) -> int:
        """Seeds that are not over."""
        return self.missing + sum(trial.ended == UNFINISHED for trial in self.trials)

    def rank(self, sign: float) -> tuple[Any, ...]:
        """Sorts configurations, the best first; `sign` is -1 where a large score is good.

        Those with a failed trial rank below those with an open one, and these below those whose trials are all over;
        of those with a failed trial the one with more finished trials is better. Then the mean score decides.
        """
        if not self.scores:
            return (3,)
        mean = sign * fmean(self.scores)
        if self.failures:
            return 2, -sum(trial.ended == FINISHED for trial in self.trials), mean
        return (1 if self.open else 0), 0, mean

    def __str__(self) -> str:
        """The mean over the seeds with its 95 % interval, and what is wrong with it."""
        total = len(self.trials) + self.missing
        parts = []
        if self.scores:
            interval, mean = bootstrap_mean(self.scores), fmean(self.scores)
            parts.append(f"{mean:.4g}" if interval is None else in_words(mean, interval, ".4g"))
        if self.failures:
            parts.append(f"{len(self.failures)} of {total} seeds failed: {self.failures[0]}")
        if stopped := sum(trial.ended == STOPPED for trial in self.trials):
            parts.append(f"{stopped} of {total} seeds stopped early")
        if self.open:
            parts.append(f"{self.open} of {total} seeds unfinished")
        return "; ".join(parts)


def outcomes(sweep: Sweep, results: ResultGrid) -> list[Outcome]:
    """Best first: by configuration (see `Configuration.rank`), then by the trial's own metric."""
    found = []
    for result in results:
        metrics, trial = result.metrics or {}, Path(result.path).name
        score = float(metrics.get(sweep.metric, math.nan))
        finished = (trial_folder(sweep.folder, trial) / RESULT_FILE).exists()
        if result.error:
            ended = reason(result.error)
        elif not (finished or metrics.get(DONE)):
            ended = UNFINISHED
        elif not math.isfinite(score):
            ended = f"{sweep.metric} is {score}"
        else:
            ended = FINISHED if finished else STOPPED
        env_steps = int(metrics.get("env_steps", 0))
        found.append(Outcome(trial, dict(result.config or {}), score, env_steps, ended))
    return [trial for configuration in configurations(sweep, found) for trial in configuration.trials]


def configurations(sweep: Sweep, found: Sequence[Outcome]) -> list[Configuration]:
    """The trials by configuration, the best first."""
    sign = -1.0 if sweep.mode == "max" else 1.0
    groups = defaultdict(list)
    for outcome in found:
        groups[outcome.configuration].append(outcome)
    seeds = _seeds(found)
    made = []
    for trials in groups.values():
        trials.sort(key=lambda trial: (trial.failed, math.isnan(trial.score), sign * trial.score))
        made.append(Configuration(trials, len(seeds - _seeds(trials))))
    return sorted(made, key=lambda configuration: configuration.rank(sign))


def _seeds(found: Sequence[Outcome]) -> set[int]:
    return {outcome.values["seed"] for outcome in found}


def show(sweep: Sweep, ranking: Sequence[Outcome]) -> None:
    """Print the trials as a table."""
    head, rows = trial_rows(sweep, ranking)
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(table)


def write_best(sweep: Sweep, ranking: Sequence[Outcome]) -> Path | None:
    """The experiment of the best configuration, every default written out, as a file for `skild-ray pipeline`.

    Its seed is one that no trial had: the configuration was chosen for what it did with theirs.

    None if no trial has a result.
    """
    best = next(iter(configurations(sweep, ranking)), None)
    if best is None or not best.scores:
        return None
    first, used = best.trials[0], _seeds(ranking) | set(sweep.seeds or ())
    seeds = ", ".join(str(trial.values["seed"]) for trial in best.trials)
    says = [
        f"Sweep {sweep.name}: {sweep.metric} {best}.",
        f"Chosen on the training seeds {seeds} (trials {', '.join(trial.trial for trial in best.trials)}), trained for "
        f"{max(trial.env_steps for trial in best.trials)} env steps.",
        "The seed below is one that no trial had: results with the others are those that it was chosen for.",
    ]
    if sweep.scheduler.pbt:
        says.append(
            "Its settings changed while it was trained; these are the last. The trained agent: evaluate "
            f"{trial_folder(sweep.folder, first.trial)}"
        )
    experiment = with_values(sweep.base, {**first.values, "name": f"{sweep.name}_best", "seed": max(used) + 1})
    path = sweep.folder / BEST_FILE
    with writable(path):
        path.write_text("".join(f"# {line}\n" for line in says) + to_yaml(experiment))
    return path


def _several(sweep: Sweep) -> bool:
    """Whether each configuration has several seeds."""
    return len(sweep.seeds or []) > 1


def varied_keys(sweep: Sweep) -> list[str]:
    return [*sweep.space, *(["seed"] if _several(sweep) else [])]


def trial_rows(sweep: Sweep, ranking: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """A row a trial; with several seeds, the first one of a configuration also says how all of them did."""
    keys, means = varied_keys(sweep), _several(sweep)
    rows = [
        [
            outcome.trial,
            "" if math.isnan(outcome.score) else f"{outcome.score:.4g}",
            *([] if not means else ["" if index else str(configuration)]),
            *(short(outcome.values.get(key)) for key in keys),
            f"{outcome.env_steps:,}",
            outcome.ended,
        ]
        for configuration in configurations(sweep, ranking)
        for index, outcome in enumerate(configuration.trials)
    ]
    return ["trial", sweep.metric, *(["mean of the seeds"] if means else []), *keys, "env steps", "ended"], rows


def short(value: Any) -> str:
    """A value as a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
