"""What a sweep found: a table, a page with a plot, and the best configuration as an experiment file."""

import math
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from ray.tune import ResultGrid
from ray.tune.result import DONE
from rich.console import Console
from rich.table import Table

from skild_ray.artifacts import writable
from skild_ray.config import to_yaml, with_values
from skild_ray.errors import last_line
from skild_ray.evaluation import page
from skild_ray.evaluation.figures import colour, new_axes, to_svg
from skild_ray.evaluation.statistics import bootstrap_mean, in_words
from skild_ray.tune.offline import trial_folder
from skild_ray.tune.sweep import Sweep, Values
from skild_ray.tune.trial import RESULT_FILE

PAGE_FILE, BEST_FILE = "sweep.html", "best.yaml"
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


def reason(error: BaseException) -> str:
    """The last line of what a trial raised, without Ray's wrapping and the name of our own errors."""
    return re.sub(r"^skild_ray\.errors\.\w+: ", "", last_line(error))


def show(sweep: Sweep, ranking: Sequence[Outcome]) -> None:
    """Print the trials as a table."""
    head, rows = _table(sweep, ranking)
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


def write_page(sweep: Sweep, ranking: Sequence[Outcome]) -> Path:
    """One self-contained page: the trials in parallel coordinates, and as a table."""
    parts = [page.element("h1", f"Sweep {sweep.name}")]
    over, failed = sum(o.ended == FINISHED for o in ranking), sum(o.failed for o in ranking)
    parts.append(
        page.note(
            f"{len(ranking)} trials of {sweep.experiment}, {over} of them finished, {failed} failed; ranked by "
            f"{sweep.metric}, {sweep.mode}imum first, configurations of which a seed failed below all others"
        )
    )
    if scored := [outcome for outcome in ranking if math.isfinite(outcome.score)]:
        best = f"Best: trial {ranking[0].trial}, {sweep.metric} {configurations(sweep, ranking)[0]}"
        parts.append(page.section("plot", "Parallel coordinates", _parallel_coordinates(sweep, scored, best)))
    head, rows = _table(sweep, ranking)
    parts.append(page.section("trials", "Trials", page.table(head, rows)))
    path = sweep.folder / PAGE_FILE
    with writable(path):
        path.write_text(page.document(f"Sweep {sweep.name}", *parts))
    return path


def _several(sweep: Sweep) -> bool:
    """Whether each configuration has several seeds."""
    return len(sweep.seeds or []) > 1


def _keys(sweep: Sweep) -> list[str]:
    return [*sweep.space, *(["seed"] if _several(sweep) else [])]


def _table(sweep: Sweep, ranking: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """A row a trial; with several seeds, the first one of a configuration also says how all of them did."""
    keys, means = _keys(sweep), _several(sweep)
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


def _parallel_coordinates(sweep: Sweep, ranking: Sequence[Outcome], title: str) -> page.Markup:
    """A line a trial over one axis a key and the metric's at the right; the best in colour, over the others."""
    keys = _keys(sweep)
    drawing, axes = new_axes(max(4.0, 1.5 * (len(keys) + 1)), 3.2)
    columns = [_Axis(key, [outcome.values.get(key) for outcome in ranking], sweep) for key in keys]
    columns.append(_Axis(sweep.metric, [outcome.score for outcome in ranking], sweep))
    for position, column in enumerate(columns):
        column.draw(axes, position)
    for index in reversed(range(len(ranking))):
        best = index == 0
        axes.plot(
            range(len(columns)),
            [column.heights[index] for column in columns],
            color=colour("--series-1" if best else "--muted"),
            linewidth=2.0 if best else 0.9,
            alpha=1.0 if best else max(0.25, 0.9 - index / len(ranking)),
        )
    axes.set_xticks(range(len(columns)), [column.name for column in columns])
    axes.set_yticks([])
    axes.set_xlim(-0.3, len(columns) - 0.6)
    axes.set_ylim(-0.08, 1.08)
    svg = to_svg(drawing, "parallel", f"{len(ranking)} trials over {', '.join(keys)} and {sweep.metric}")
    return page.figure(title, svg)


class _Axis:
    """One vertical axis: the heights, 0 to 1, of its trials' values, and what is written beside it."""

    def __init__(self, name: str, values: Sequence[Any], sweep: Sweep) -> None:
        self.name = name
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        dimension = sweep.space.get(name)
        if numbers and not (dimension and dimension.choice):
            scale = math.log if dimension and dimension.loguniform else float
            low, high = min(values), max(values)
            span = scale(high) - scale(low)
            self.heights = [0.5 if span == 0 else (scale(value) - scale(low)) / span for value in values]
            self.labels = [(0.5, low)] if span == 0 else [(0.0, low), (1.0, high)]
        else:  # a list: evenly apart, in its order
            listed = (dimension and (dimension.choice or dimension.grid)) or sorted(set(values), key=str)
            places = {str(value): (i / (len(listed) - 1) if len(listed) > 1 else 0.5) for i, value in enumerate(listed)}
            self.heights = [places[str(value)] for value in values]
            self.labels = [(places[str(value)], value) for value in listed]

    def draw(self, axes: Axes, position: int) -> None:
        """The axis line and its labels."""
        axes.axvline(position, color=colour("--line"), linewidth=0.8)
        for height, value in self.labels:
            axes.text(position + 0.04, height, short(value), fontsize=7, color=colour("--muted"), va="center")
