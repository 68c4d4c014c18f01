"""The page of a sweep: its trials in parallel coordinates, and as a table."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from skild_ray.report import page
from skild_ray.report.figures import colour, new_axes, to_svg
from skild_ray.runs.artifacts import writable
from skild_ray.tune.results import FINISHED, Outcome, configurations, short, trial_rows, varied_keys
from skild_ray.tune.sweep import Sweep

PAGE_FILE = "sweep.html"


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
    head, rows = trial_rows(sweep, ranking)
    parts.append(page.section("trials", "Trials", page.table(head, rows)))
    path = sweep.folder / PAGE_FILE
    with writable(path):
        path.write_text(page.document(f"Sweep {sweep.name}", *parts))
    return path


def _parallel_coordinates(sweep: Sweep, ranking: Sequence[Outcome], title: str) -> page.Markup:
    """A line a trial over one axis a key and the metric's at the right; the best in colour, over the others."""
    keys = varied_keys(sweep)
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
