"""The figures of a benchmark: interquartile means, performance profiles, learning curves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from skild_ray.benchmark.table import Curves, Table
from skild_ray.evaluation import aggregates
from skild_ray.report.comparison import with_interval
from skild_ray.report.figures import colour, line_styles, new_axes, new_grid, to_svg
from skild_ray.report.page import standalone

THRESHOLDS = np.linspace(0.0, 1.0, 101)
COLUMNS = 3
"""Worlds beside each other."""


@dataclass(frozen=True)
class Figure:
    """An SVG file, with the same in words for those who cannot see it."""

    name: str
    svg: str
    description: str
    caption: str


def draw(table: Table) -> list[Figure]:
    """The figures that the cells allow: those over all worlds need a method that has them all."""
    return [*([_means(table), _profiles(table)] if table.complete else []), _curves(table)]


def _means(table: Table) -> Figure:
    """A line a method: the interquartile mean with its interval, deterministic and sampled."""
    methods = table.complete
    drawing, axes = new_axes(6.0, 0.6 + 0.32 * len(methods))
    said = []
    for place, method in enumerate(methods):
        for sampled, series in ((False, "--series-1"), (True, "--series-2")):
            if (runs := table.runs(method, sampled)) is None:
                continue
            mean, bounds = float(aggregates.iqm(runs)), aggregates.interval(aggregates.iqm, runs)
            height = place + (0.14 if sampled else -0.14)
            if bounds:
                axes.plot(bounds, (height, height), color=colour(series), linewidth=2.2, alpha=0.5)
            axes.plot(mean, height, "o", color=colour(series), markersize=4.5)
            if not sampled:
                said.append(f"{method} {with_interval(mean, bounds)}")
    for how, series in (("deterministic", "--series-1"), ("sampled", "--series-2")):
        axes.plot([], [], "o", color=colour(series), markersize=4.5, label=how)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("interquartile mean of the score")
    axes.grid(visible=True, axis="x")
    _legend(axes)
    description = f"Interquartile mean of the deterministic score over {len(table.worlds)} worlds: {'; '.join(said)}."
    caption = "Interquartile means over all worlds and seeds, with 95 % stratified bootstrap intervals."
    return Figure("iqm", standalone(to_svg(drawing, "iqm", description)), description, caption)


def _profiles(table: Table) -> Figure:
    """A line a method: the share of its runs with a deterministic score above each threshold."""
    methods = table.complete
    drawing, axes = new_axes(6.6, 3.4)
    said = []
    for method, (ink, dashes) in zip(methods, line_styles(len(methods)), strict=True):
        runs = table.runs(method)
        assert runs is not None
        profile = aggregates.performance_profile(runs, THRESHOLDS)
        band = aggregates.stratified_bootstrap(lambda drawn: aggregates.performance_profile(drawn, THRESHOLDS), runs)
        if band:
            axes.fill_between(THRESHOLDS, *band, color=ink, alpha=0.12, linewidth=0)
        axes.plot(THRESHOLDS, profile, color=ink, linewidth=1.6, linestyle=dashes, label=method)
        said.append(f"{method} {np.interp(aggregates.MASTERED, THRESHOLDS, profile):.2f}")
    axes.set_xlabel("score")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(-0.02, 1.02)
    axes.margins(x=0.01)
    _legend(axes)
    description = f"Performance profiles. Share of the runs with a deterministic score above 0.8: {'; '.join(said)}."
    caption = "Performance profiles of the deterministic score, with 95 % bands."
    return Figure("profiles", standalone(to_svg(drawing, "profiles", description)), description, caption)


def _curves(table: Table) -> Figure:
    """A panel a world: mean and range of the learning curves; dashed the score of what learns nothing there."""
    worlds, methods = table.worlds, table.methods
    drawing, panels = new_grid(len(worlds), COLUMNS, 2.7, 2.1)
    styles = dict(zip(methods, line_styles(len(methods)), strict=True))
    said = []
    for world, axes in zip(worlds, panels, strict=True):
        last = []
        for method in methods:
            ink, dashes = styles[method]
            if curves := table.curves(world, method):
                mean = _band(axes, curves, ink, dashes)
                last += [f"{method} {mean:.2f}"] if mean is not None else []
            elif cells := table.of(world, method):
                height = float(np.mean([cell.score_deterministic for cell in cells]))
                axes.axhline(height, color=ink, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.set_title(world, color=colour("--ink"))
        axes.set_ylim(-0.02, 1.02)
        axes.margins(x=0.01)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        said.append(f"{world}: {', '.join(last) or 'no curves'}")
    for method, (ink, dashes) in styles.items():
        panels[0].plot([], [], color=ink, linewidth=1.6, linestyle=dashes, label=method)
    drawing.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8, labelcolor=colour("--ink"))
    description = f"Learning curves, score over env steps; at their end, mean of the seeds: {'; '.join(said)}."
    caption = (
        "Scores of training episodes, running means of the sampled policy: mean of the seeds, and the band from the "
        "worst to the best. Dashed: the deterministic score of methods that learn nothing in the environment."
    )
    return Figure("curves", standalone(to_svg(drawing, "curves", description)), description, caption)


def _band(axes: Axes, curves: Curves, ink: str, dashes: Any) -> float | None:
    """Draw mean and range of a method's curves; the mean at their end, None if they have no env steps in common."""
    try:
        steps, mean, low, high = aggregates.band(curves)
    except ValueError:
        return None
    axes.fill_between(steps, low, high, color=ink, alpha=0.14, linewidth=0)
    axes.plot(steps, mean, color=ink, linewidth=1.4, linestyle=dashes)
    return float(mean[-1])


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, labelcolor=colour("--ink"))
