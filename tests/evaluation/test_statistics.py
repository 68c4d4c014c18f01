"""Intervals of means: within their bounds, never without width, and as often right as they say."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from skild_ray.evaluation.statistics import bootstrap_mean, bounded_mean, in_words, wilson

Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (0, 100), (3, 10), (97, 100), (100, 100), (1_000, 1_000)])
def test_a_rate_has_the_interval_of_wilson(hits: int, count: int) -> None:
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    low, high = wilson(hits / count, count)
    np.testing.assert_allclose((low, high), (expected.low, expected.high), atol=1e-6)
    assert 0 <= low < high <= 1


def test_two_valued_returns_have_the_interval_of_the_rate() -> None:
    success = np.arange(100) < 96
    low, high = bounded_mean(success, 0, 1)
    assert bounded_mean(100 * success, 0, 100) == pytest.approx([100 * low, 100 * high])
    assert bounded_mean(5.0 - 2.0 * ~success, 3, 5) == pytest.approx([3 + 2 * low, 3 + 2 * high])


@pytest.mark.parametrize("value", [0, 2, 4])
def test_equal_values_have_an_interval_within_their_bounds(value: int) -> None:
    low, high = bounded_mean(np.full(100, value), 0, 4)
    assert 0 <= low <= value <= high <= 4
    assert high - low > 0.1


@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    [
        # A rate near its bound is covered a little less often than 95 %: Brown, Cai and DasGupta 2001, figure 5.
        (lambda rng, shape: 4.0 * (rng.random(shape) < 0.99), 3.96, 0.91),
        (lambda rng, shape: 4.0 * (rng.random(shape) < 0.8), 3.2, 0.94),
        (lambda rng, shape: 3.0 + (rng.random(shape) < 0.97), 3.97, 0.95),
        (lambda rng, shape: rng.integers(0, 5, shape).astype(float), 2.0, 0.95),
        (lambda rng, shape: 4 * rng.beta(8, 0.4, shape), 4 * 8 / 8.4, 0.95),
    ],
    ids=["all or nothing, 0.99", "all or nothing, 0.8", "three or four", "uniform", "continuous, skewed"],
)
def test_coverage_of_bounded_means(draw: Draw, mean: float, least: float) -> None:
    """Of 100 episodes. Student's t covers the first one with 63 %: without a failure it has no width."""
    values = draw(np.random.default_rng(0), (4_000, 100))
    low, high = wilson(values.mean(1) / 4, 100)
    assert np.mean((4 * low <= mean) & (mean <= 4 * high)) >= least


def test_the_bootstrap_stays_within_the_values_and_repeats() -> None:
    values = np.random.default_rng(0).exponential(size=50)
    low, high = bootstrap_mean(values)
    assert values.min() < low < values.mean() < high < values.max()
    assert bootstrap_mean(values) == (low, high)
    # Of a mean of many values it is the normal approximation.
    half = 1.96 * values.std() / np.sqrt(50)
    np.testing.assert_allclose((low, high), (values.mean() - half, values.mean() + half), atol=0.2 * half)


def test_three_seeds_from_the_worst_to_the_best() -> None:
    assert bootstrap_mean([3.0, 4.0, 3.8]) == (3.0, 4.0)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [5.0] * 100])
def test_values_that_cannot_tell_an_interval_have_none(values: list[float]) -> None:
    assert bootstrap_mean(values) is None
    assert in_words(values[0], None) == f"{values[0]:.2f} (unknown)"
