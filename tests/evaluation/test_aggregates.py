"""Aggregates over tasks and seeds: against numbers worked out by hand, SciPy, and the bounds of a bootstrap."""

import numpy as np
import pytest
from scipy import stats

from skild_ray.evaluation.aggregates import (
    band,
    checked,
    improvement_interval,
    interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    regret,
    steps_to,
    stratified_bootstrap,
)

RNG = np.random.default_rng(0)


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    runs = checked([[0.7, 0.0, 0.1, 0.6], [0.2, 0.5, 0.3, 0.4]])
    assert iqm(runs) == pytest.approx((0.2 + 0.3 + 0.4 + 0.5) / 4)
    assert iqm(checked([[0.0, 0.5, 1.0]])) == pytest.approx(0.5), "nothing to leave out of three"
    several = [RNG.random(5), RNG.random(3), RNG.random(6)]
    assert iqm(several) == pytest.approx(stats.trim_mean(np.concatenate(several), 0.25))


def test_a_profile_counts_what_is_above_a_threshold() -> None:
    runs = checked([[0.0, 0.5], [0.6, 1.0]])
    np.testing.assert_array_equal(performance_profile(runs, np.array([0.0, 0.5, 1.0])), [0.75, 0.5, 0.0])


def test_improvement_is_the_statistic_of_mann_and_whitney() -> None:
    first, second = checked([[1.0, 0.5], [0.0]]), checked([[0.5, 0.0], [1.0]])
    # Three of four pairs of the first task are better and one is equal; the second task has none.
    assert probability_of_improvement(first, second) == pytest.approx((3.5 / 4 + 0) / 2)
    x, y = RNG.random(7), RNG.random(5)
    assert probability_of_improvement([x], [y]) == pytest.approx(stats.mannwhitneyu(x, y).statistic / 35)
    assert probability_of_improvement([x], [x]) == pytest.approx(0.5)


def test_seeds_are_drawn_within_their_task() -> None:
    """The mean of three zeros and of (0, 0.5, 1) is at most 1 / 2; over all six together it could be more."""
    runs = checked([[0.0, 0.0, 0.0], [0.0, 0.5, 1.0]])
    found = interval(lambda drawn: np.concatenate(drawn, axis=-1).mean(-1), runs)
    assert found == (0.0, 0.5)
    assert stratified_bootstrap(iqm, checked([[0.0] * 3, [1.0] * 3])) is None, "worlds differ, seeds do not"


def test_an_interval_of_many_seeds_is_the_normal_approximation() -> None:
    runs = [RNG.beta(4, 2, 40), RNG.beta(2, 4, 40)]
    low, high = interval(lambda drawn: np.concatenate(drawn, axis=-1).mean(-1), runs) or (0, 0)
    half = 1.96 * np.sqrt(sum(scores.var() / 40 for scores in runs)) / 2
    mean = np.concatenate(runs).mean()
    np.testing.assert_allclose((low, high), (mean - half, mean + half), atol=0.2 * half)
    assert interval(iqm, runs) == interval(iqm, runs), "the same runs give the same"


def test_few_seeds_have_no_interval() -> None:
    assert interval(iqm, checked([[0.1, 0.5], [0.2, 0.3, 0.9]])) is None
    better, worse = checked([[0.8, 0.9, 1.0]]), checked([[0.0, 0.1, 0.2]])
    assert improvement_interval(better, worse) is None, "always 1: how sure that is, is unknown"
    low, high = improvement_interval(better, checked([[0.85, 0.95, 0.5]])) or (0, 0)
    assert 0 <= low < 2 / 3 < high <= 1


@pytest.mark.parametrize(("runs", "message"), [([], "one seed"), ([[0.5], []], "one seed"), ([[np.nan]], "finite")])
def test_what_cannot_be_aggregated(runs: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(runs)


def test_how_fast_a_curve_rises() -> None:
    steps, scores = [100, 300], [0.5, 1.0]
    assert (steps_to(steps, scores), steps_to(steps, scores, 0.5), steps_to(steps, [0.1, 0.79])) == (300, 100, None)
    # 0.5 for 100 env steps, 0.75 in the mean of the next 200.
    assert regret(steps, scores) == pytest.approx(1 - (50 + 150) / 300)
    assert regret([100], [0.25]) == pytest.approx(0.75)


def test_a_band_is_on_the_steps_that_all_curves_have() -> None:
    first, second = (np.array([0.0, 100.0]), np.array([0.0, 1.0])), (np.array([50.0, 200.0]), np.array([0.2, 0.2]))
    grid, mean, low, high = band([first, second])
    assert (grid[0], grid[-1]) == (50, 100)
    np.testing.assert_allclose(high, grid / 100)
    np.testing.assert_allclose(low, 0.2)
    np.testing.assert_allclose(mean, (grid / 100 + 0.2) / 2)
    with pytest.raises(ValueError, match="in common"):
        band([(first[0] + 300, first[1]), second])
