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
from rich.console import Console
from rich.table import Table

from skild_ray.artifacts import writable
from skild_ray.config import to_yaml, with_values
from skild_ray.errors import last_line
from skild_ray.evaluation import page
from skild_ray.evaluation.figures import colour, new_axes, to_svg
from skild_ray.tune.offline import trial_folder
from skild_ray.tune.sweep import Sweep, Values
from skild_ray.tune.trial import RESULT_FILE

PAGE_FILE, BEST_FILE = "sweep.html", "best.yaml"
FINISHED, STOPPED = "finished", "stopped early"
LOG_WIDTH = 130


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
    """`FINISHED`, `STOPPED`, or the reason why it failed."""

    @property
    def failed(self) -> bool:
        return self.ended not in (FINISHED, STOPPED)

    @property
    def configuration(self) -> tuple[tuple[str, Any], ...]:
        """What trials of one configuration with other seeds have in common."""
        return tuple((key, str(value)) for key, value in self.values.items() if key != "seed")


def outcomes(sweep: Sweep, results: ResultGrid) -> list[Outcome]:
    """Best first: by the mean over the seeds of a configuration, then by the trial's own metric; failed ones last."""
    found = []
    for result in results:
        metrics, trial = result.metrics or {}, Path(result.path).name
        finished = (trial_folder(sweep.folder, trial) / RESULT_FILE).exists()
        found.append(
            Outcome(
                trial=trial,
                values=dict(result.config or {}),
                score=float(metrics.get(sweep.metric, math.nan)),
                env_steps=int(metrics.get("env_steps", 0)),
                ended=reason(result.error) if result.error else FINISHED if finished else STOPPED,
            )
        )
    scores = defaultdict(list)
    for outcome in found:
        if not (outcome.failed or math.isnan(outcome.score)):
            scores[outcome.configuration].append(outcome.score)
    sign = -1.0 if sweep.mode == "max" else 1.0

    def order(outcome: Outcome) -> tuple[float, float]:
        if outcome.failed or math.isnan(outcome.score):
            return math.inf, math.inf
        return sign * fmean(scores[outcome.configuration]), sign * outcome.score

    return sorted(found, key=order)


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
    """The experiment of the best trial, every default written out, as a file for `skild-ray pipeline`.

    None if no trial has a result.
    """
    if not ranking or ranking[0].failed or math.isnan(ranking[0].score):
        return None
    best = ranking[0]
    experiment = with_values(sweep.base, {**best.values, "name": f"{sweep.name}_best"})
    says = f"# Sweep {sweep.name}, trial {best.trial}: {sweep.metric} {best.score:.4g} at {best.env_steps} env steps.\n"
    if sweep.scheduler.pbt:
        says += "# Its settings changed while it was trained; these are the last. The trained agent: evaluate "
        says += f"{trial_folder(sweep.folder, best.trial)}\n"
    path = sweep.folder / BEST_FILE
    with writable(path):
        path.write_text(says + to_yaml(experiment))
    return path


def write_page(sweep: Sweep, ranking: Sequence[Outcome]) -> Path:
    """One self-contained page: the trials in parallel coordinates, and as a table."""
    parts = [page.element("h1", f"Sweep {sweep.name}")]
    over = sum(outcome.ended == FINISHED for outcome in ranking)
    parts.append(
        page.note(
            f"{len(ranking)} trials of {sweep.experiment}, {over} of them finished; ranked by {sweep.metric}, "
            f"{sweep.mode}imum first"
        )
    )
    if scored := [outcome for outcome in ranking if not math.isnan(outcome.score)]:
        parts.append(page.section("plot", "Parallel coordinates", _parallel_coordinates(sweep, scored)))
    head, rows = _table(sweep, ranking)
    parts.append(page.section("trials", "Trials", page.table(head, rows)))
    path = sweep.folder / PAGE_FILE
    with writable(path):
        path.write_text(page.document(f"Sweep {sweep.name}", *parts))
    return path


def _keys(sweep: Sweep) -> list[str]:
    return [*sweep.space, *(["seed"] if len(sweep.seeds or []) > 1 else [])]


def _table(sweep: Sweep, ranking: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    keys = _keys(sweep)
    rows = [
        [
            outcome.trial,
            "" if math.isnan(outcome.score) else f"{outcome.score:.4g}",
            *(short(outcome.values.get(key)) for key in keys),
            f"{outcome.env_steps:,}",
            outcome.ended,
        ]
        for outcome in ranking
    ]
    return ["trial", sweep.metric, *keys, "env steps", "ended"], rows


def short(value: Any) -> str:
    """A value as a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parallel_coordinates(sweep: Sweep, ranking: Sequence[Outcome]) -> page.Markup:
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
    return page.figure(f"Best: trial {ranking[0].trial}, {sweep.metric} {ranking[0].score:.4g}", svg)


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
