"""Methods compared over tasks and seeds: aggregates, their intervals, and how fast a method learns.

The `runs` of a method are a list with an array for each task: the scores of its seeds, in [0, 1]. Tasks may have
different numbers of seeds; a task then counts as much as it has seeds, except in `probability_of_improvement`. The
aggregates also take arrays with further axes in front, [..., seeds], as the bootstrap has them.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skild_ray.evaluation.statistics import FEWEST, Interval

Scores = NDArray[np.float64]
Runs = Sequence[Scores]

RESAMPLES = 2_000
GRID_POINTS = 200
MASTERED = 0.8
"""The score by which `steps_to` judges that a task is learned."""


def checked(runs: Sequence[ArrayLike]) -> list[Scores]:
    """The scores as arrays.

    Raises:
        ValueError: a task has no scores, or one of them is not finite.
    """
    arrays = [np.asarray(scores, np.float64) for scores in runs]
    if not arrays or any(scores.size == 0 for scores in arrays):
        raise ValueError("every task needs the score of one seed at least")
    if not all(np.isfinite(scores).all() for scores in arrays):
        raise ValueError("a score is not finite")
    return arrays


def iqm(runs: Runs) -> Scores:
    """Interquartile mean: the mean of all scores, of all tasks together, without floor(n / 4) of them at either end."""
    scores = np.sort(np.concatenate(runs, axis=-1), axis=-1)
    cut = scores.shape[-1] // 4
    mean: Scores = scores[..., cut : scores.shape[-1] - cut].mean(-1)
    return mean


def performance_profile(runs: Runs, thresholds: Scores) -> Scores:
    """For each threshold the share of all scores that are above it: [..., thresholds]."""
    share: Scores = (np.concatenate(runs, axis=-1)[..., None, :] > thresholds[:, None]).mean(-1)
    return share


def probability_of_improvement(first: Runs, second: Runs) -> Scores:
    """P(X > Y) + P(X = Y) / 2 for a run X of the first and a run Y of the second method of one task, mean of the tasks.

    For each task that is the statistic of Mann and Whitney, U / (n_X n_Y).
    """
    tasks = []
    for x, y in zip(first, second, strict=True):
        difference = x[..., :, None] - y[..., None, :]
        tasks.append(((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1)))
    mean: Scores = np.mean(tasks, axis=0)
    return mean


def stratified_bootstrap(statistic: Callable[[Runs], Scores], runs: Runs) -> tuple[Scores, Scores] | None:
    """95 % interval of a statistic of the runs, one for each of its last axis: the percentile bootstrap.

    Seeds are drawn with replacement within each task. The same runs give the same interval.

    Returns:
        None where it would be meaningless: a task has fewer than three seeds, or the seeds of every task are equal.
    """
    if min(len(scores) for scores in runs) < FEWEST or all(np.ptp(scores) == 0 for scores in runs):
        return None
    rng = np.random.default_rng(0)
    drawn = [scores[rng.integers(len(scores), size=(RESAMPLES, len(scores)))] for scores in runs]
    low, high = np.quantile(statistic(drawn), (0.025, 0.975), axis=0)
    return low, high


def interval(statistic: Callable[[Runs], Scores], runs: Runs) -> Interval | None:
    """`stratified_bootstrap` of a single number; None also if it is the same for all that was drawn."""
    bounds = stratified_bootstrap(statistic, runs)
    return None if bounds is None or bounds[0] == bounds[1] else (float(bounds[0]), float(bounds[1]))


def improvement_interval(first: Runs, second: Runs) -> Interval | None:
    """95 % interval of `probability_of_improvement`; the seeds of both methods are drawn."""
    tasks = len(first)
    return interval(lambda drawn: probability_of_improvement(drawn[:tasks], drawn[tasks:]), [*first, *second])


def steps_to(steps: ArrayLike, scores: ArrayLike, level: float = MASTERED) -> int | None:
    """Env steps after which a learning curve first reaches `level`; None if it never does."""
    reached = np.flatnonzero(np.asarray(scores, np.float64) >= level)
    return int(np.asarray(steps)[reached[0]]) if len(reached) else None


def regret(steps: ArrayLike, scores: ArrayLike) -> float:
    """Area above a learning curve: the mean of 1 - score over the env steps from 0 to the last point.

    The curve is linear between its points; before the first of them it has the score of that one.
    """
    x, y = np.asarray(steps, np.float64), np.asarray(scores, np.float64)
    if x[-1] <= 0:
        return float(1 - y[-1])
    x, y = np.concatenate(([0.0], x)), np.concatenate((y[:1], y))
    area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)
    return float(1 - area / x[-1])


def band(curves: Sequence[tuple[Scores, Scores]]) -> tuple[Scores, Scores, Scores, Scores]:
    """Mean, minimum and maximum of learning curves, each (env steps, scores), on the env steps that all of them have.

    Returns:
        The grid of env steps, and the three on it, interpolated linearly.

    Raises:
        ValueError: there are no such env steps.
    """
    first, last = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    if first > last:
        raise ValueError("the curves have no env steps in common")
    grid = np.linspace(first, last, GRID_POINTS)
    values = np.stack([np.interp(grid, *curve) for curve in curves])
    return grid, values.mean(0), values.min(0), values.max(0)
