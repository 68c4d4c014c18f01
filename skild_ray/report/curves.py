"""Training curves: what a stage's `metrics.csv` says, as small panels."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from skild_ray.algorithms.off_policy import EPISODE_WINDOW
from skild_ray.evaluation.results import Summary
from skild_ray.evaluation.statistics import wilson
from skild_ray.report.figures import colour, new_axes, to_svg
from skild_ray.report.page import SERIES, Markup, element, figure, join, legend, panels

Metrics = dict[str, NDArray[np.float64]]

Band = tuple[NDArray[np.float64], NDArray[np.float64]]

MAX_POINTS = 200
PANEL_SIZE = (2.8, 1.75)
WIDTHS = (1.5, 1.2, 1.0, 0.8)
"""Of lines in their order: where two coincide, both can be seen."""

LOSS_TITLES = {
    "total": ("Loss", "nats"),
    "kl": ("KL(encoder ‖ N(0, I))", "nats a latent dimension"),
    "prior": ("-log p(z|s) of the prior", "nats"),
    "action_mse": ("Action error of the decoder", "mean square"),
    "squared_error": ("Error of the mean action", "mean square"),
    "d_demonstrations": ("D(s) on demonstrations", "mean D"),
    "d_task_agnostic": ("D(s) on task-agnostic states", "mean D"),
}


@dataclass(frozen=True)
class Panel:
    """One small plot of stage 4: columns of the metrics with their labels."""

    title: str
    unit: str
    series: Sequence[tuple[str, str]]
    limits: tuple[float, float] | None = None
    log: bool = False
    hide_zero: bool = False
    """Leave it out where all values are 0: what it shows was not in use."""


DOWNSTREAM_PANELS: dict[str, tuple[Panel, ...]] = {
    "Episodes": (
        Panel("Success", f"share of {EPISODE_WINDOW} episodes", [("success", "")], limits=(-0.02, 1.02)),
        Panel("Sub-tasks solved", f"mean of {EPISODE_WINDOW} episodes", [("subtasks_solved", "")]),
        Panel("Return", "reward an episode", [("episode_return", "")]),
        Panel("Length", "env steps an episode", [("episode_env_steps", "")]),
    ),
    "Values and rewards": (
        Panel(
            "Q values",
            "discounted reward",
            [("q_1", "Q₁(s, z)"), ("q_2", "Q₂(s, z)"), ("q_target", "target"), ("q_policy", "Q(s, z ~ π)")],
        ),
        Panel(
            "Weighted n-step rewards",
            "mean of a batch",
            [
                ("env_reward", "environment"),
                ("discriminator_reward", "discriminator"),
                ("exploration_bonus", "bonus for novelty"),
                ("rl_training_reward", "sum"),
            ],
        ),
        Panel("Critic loss", "half the squared error", [("critic_loss", "")], log=True),
        Panel("Policy loss", "regularisation - Q", [("policy_loss", "")]),
        Panel("Flow loss", "squared error of the velocity", [("flow_loss", "")]),
        Panel(
            "Models of own experience",
            "squared error; nats",
            [
                ("rnd_loss", "random features"),
                ("reward_model_loss", "reward"),
                ("termination_loss", "termination"),
            ],
            log=True,
            hide_zero=True,
        ),
        Panel(
            "Gradients before clipping",
            "norm",
            [("critic_gradient", "critics"), ("policy_gradient", "policy")],
            log=True,
        ),
    ),
    "Regularisation and demonstration support": (
        Panel(
            "Divergences",
            "nats",
            [("prior_divergence", "KL(π ‖ prior), D ≤ ½"), ("posterior_divergence", "KL(π ‖ posterior), D > ½")],
        ),
        Panel("Divergence weights", "reward a nat", [("alpha", "alpha (prior)"), ("alpha_q", "alpha_q (posterior)")]),
        Panel("Temperature", "reward a nat", [("temperature", "")]),
        Panel("Entropy of the policy", "nats", [("entropy", "")]),
        Panel(
            "Demonstration support",
            "mean D(s) of a batch",
            [("p_demo", ""), ("p_demo_absorbing", "absorbing state")],
            limits=(-0.02, 1.02),
        ),
        Panel("Cloned decisions", "share that Q prefers, s'", [("cloned", "")], limits=(-0.02, 1.02)),
        Panel("Spread of the policy", "mean log sigma", [("policy_log_sigma", "")]),
        Panel("Discriminator loss, online", "nats", [("discriminator_loss", "")], hide_zero=True),
    ),
}


def read_metrics(path: Path) -> Metrics:
    """Columns of a `metrics.csv`; NaN where a row has no value. Empty where there is no such file."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    return {name: np.array([float(row[i] or "nan") for row in rows]) for i, name in enumerate(head)}


def offline_curves(stage: str, metrics: Metrics) -> Markup:
    """Training against held-out values of every loss of an offline stage over iterations; the kept weights are marked.

    A loss that picked the best of its part of the model is marked by its value with all that is kept, since when it has
    had that one.
    """
    names = [name.removeprefix("val_") for name in metrics if name.startswith("val_")]
    if {"action_mse", "reconstruction"} <= set(names):  # the latter is half the former, plus a constant
        names.remove("reconstruction")
    steps, kept_rows = metrics["iteration"], np.flatnonzero(metrics.get("kept", 0))
    unknown = np.full_like(steps, np.nan)  # some losses are held-out episodes' only
    figures = []
    for name in names:
        title, unit = LOSS_TITLES.get(name, (name.replace("_", " "), ""))
        lines = [("training", metrics.get(f"train_{name}", unknown)), ("held out", metrics[f"val_{name}"])]
        kept = (steps[kept_rows[-1]], metrics[f"val_{name}"][kept_rows[-1]]) if len(kept_rows) else None
        if (of_kept := metrics.get(f"kept_{name}")) is not None:
            kept = steps[np.flatnonzero(np.diff(of_kept, prepend=np.inf))[-1]], of_kept[-1]
        figures.append(_panel(f"{stage}-{name}", title, unit, "iterations", steps, lines, kept=kept))
    return panels(figures)


def downstream_curves(stage: str, metrics: Metrics) -> Markup:
    """Groups of panels of stage 4 over environment steps, those of which the metrics know a column."""
    steps, unit = _steps(metrics)
    parts: list[Markup] = []
    for group, group_panels in DOWNSTREAM_PANELS.items():
        figures = []
        for panel in group_panels:
            lines = [(label, metrics[name]) for name, label in panel.series if _known(metrics, name)]
            if not lines or (panel.hide_zero and not any(np.nan_to_num(values).any() for _, values in lines)):
                continue
            name = f"{stage}-{panel.series[0][0]}"
            figures.append(
                _panel(
                    name,
                    panel.title,
                    panel.unit,
                    unit,
                    steps,
                    lines,
                    panel.limits,
                    panel.log,
                    band=subtasks_ci95(metrics) if panel.series[0][0] == "subtasks_solved" else None,
                )
            )
        if group == "Episodes" and (rates := _completion_rates(metrics)):
            figures.append(
                _panel(
                    f"{stage}-completion",
                    "Completed in order",
                    f"share of {EPISODE_WINDOW} episodes",
                    unit,
                    steps,
                    rates,
                    limits=(-0.02, 1.02),
                )
            )
        if figures:
            parts += [element("h4", group), panels(figures)]
    return join(parts)


def _steps(metrics: Metrics) -> tuple[NDArray[np.float64], str]:
    """Where each row of stage 4 stands, and in which unit: offline updates count up to 0, then env steps begin."""
    steps, updates = metrics["env_steps"], metrics.get("updates", np.zeros_like(metrics["env_steps"]))
    last = updates[steps == 0].max(initial=0)
    if last == 0:
        return steps, "env steps"
    return np.where(steps == 0, updates - last, steps), "env steps; before 0 offline updates"


def credit_curves(stage: str, parts: Sequence[tuple[str, Summary]]) -> Markup:
    """Share of the evaluation's episodes that have been credited each sub-task over env steps, a panel for each policy.

    Args:
        stage: makes the names of the figures unique.
        parts: policies' names with their summaries, which have several sub-tasks.
    """
    longest = max(steps[-1] for _, part in parts for steps in [(1,), *part.credited_at] if steps)
    x = np.unique(np.linspace(0, longest, MAX_POINTS).astype(int))
    figures = []
    for number, (label, part) in enumerate(parts):
        lines = []
        for index, subtask in enumerate(part.subtasks):
            steps = [episode[index] for episode in part.credited_at if len(episode) > index]
            counts = np.bincount(steps, minlength=longest + 1).cumsum()
            lines.append((subtask.name, counts[x] / part.episodes))
        name = f"{stage}-credit-{number}"
        figures.append(_panel(name, label, "share of episodes", "env steps of the episode", x, lines, (-0.02, 1.02)))
    return panels(figures)


def _completion_rates(metrics: Metrics) -> list[tuple[str, NDArray[np.float64]]]:
    """Sub-tasks with the share of the episodes that completed them, in their order."""
    found = {}
    for column, values in metrics.items():
        if match := re.fullmatch(r"solved_(\d+)(?:_(.+))?", column):
            number, name = match.groups()
            found[int(number)] = (name.replace("_", " ") if name else f"sub-task {number}", values)
    return [found[number] for number in sorted(found)]


def subtasks_ci95(metrics: Metrics) -> Band | None:
    """95 % interval of the mean number of sub-tasks solved, which is the sum of the completion rates."""
    rates = [values for _, values in _completion_rates(metrics)]
    if not rates:
        return None
    low, high = wilson(np.mean(rates, axis=0), np.clip(metrics["episodes"], 1, EPISODE_WINDOW))
    return len(rates) * low, len(rates) * high


def _known(metrics: Metrics, name: str) -> bool:
    if name not in metrics or not np.isfinite(metrics[name]).any():
        return False
    # With a single sub-task, solving it is success.
    repeated = name == "subtasks_solved" and "success" in metrics
    return not (repeated and np.array_equal(metrics[name], metrics["success"], equal_nan=True))


def _panel(
    name: str,
    title: str,
    unit: str,
    step_unit: str,
    steps: NDArray[np.float64],
    lines: Sequence[tuple[str, NDArray[np.float64]]],
    limits: tuple[float, float] | None = None,
    log: bool = False,
    kept: tuple[float, float] | None = None,
    band: Band | None = None,
) -> Markup:
    drawing, axes = new_axes(*PANEL_SIZE)
    if band:
        shown = np.isfinite(band[0])
        (x, low), (_, high) = (_thinned(steps[shown], bound[shown]) for bound in band)
        axes.fill_between(x, low, high, color=colour(SERIES[0]), alpha=0.18, linewidth=0)
    for (_, values), series, width in zip(lines, cycle(SERIES), cycle(WIDTHS)):
        shown = np.isfinite(values) & ((values > 0) | (not log))
        x, y = _thinned(steps[shown], values[shown])
        axes.plot(x, y, color=colour(series), linewidth=width, marker="." if len(x) == 1 else None)
    if kept:
        axes.plot(*kept, "o", color=colour("--mark"), markersize=3.2)
    axes.set_xlabel(step_unit)
    axes.set_ylabel(unit)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.02)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    if limits:
        axes.set_ylim(*limits)
    entries = [(label, series) for (label, _), series in zip(lines, cycle(SERIES)) if label]
    dots = [("kept", "--mark")] if kept else []
    return figure(title, to_svg(drawing, name, f"{title} over {step_unit}"), legend(entries, dots))


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most MAX_POINTS points: means over equal numbers of neighbours."""
    if len(x) <= MAX_POINTS:
        return x, y
    edges = np.linspace(0, len(x), MAX_POINTS + 1).astype(int)
    return np.add.reduceat(x, edges[:-1]) / np.diff(edges), np.add.reduceat(y, edges[:-1]) / np.diff(edges)
