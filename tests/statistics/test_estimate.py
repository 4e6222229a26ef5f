"""Intervals against SciPy, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curvebench.statistics import Estimate, interval, within_noise

FINITE = st.integers(-(10**8), 10**8).map(lambda k: k / 64)
"""No denormal differences: SciPy's own t.interval divides by their standard error, which underflows to 0."""


@given(st.lists(FINITE, min_size=2, max_size=9), st.floats(0.5, 0.999))
def test_few_values_get_the_t_interval_of_scipy(values: list[float], confidence: float) -> None:
    found = interval(values, confidence)
    mean, scale = float(np.mean(values)), float(stats.sem(values))
    if len(set(values)) == 1:
        assert (found.low, found.high) == (values[0], values[0])
        return
    low, high = stats.t.interval(confidence, len(values) - 1, loc=mean, scale=scale)
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.low == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert found.high == pytest.approx(high, rel=1e-9, abs=1e-9)
    assert found.n == len(values)


def test_ten_values_get_the_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(0).gamma(1.0, size=10)
    found = interval(values)
    wanted = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=2999, rng=np.random.default_rng(20250731)
    ).confidence_interval
    assert (found.low, found.high) == (wanted.low, wanted.high)
    assert interval(values) == found, "the same values give the same interval"


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_values_have_no_interval(n: int) -> None:
    found = interval([3.0] * n)
    assert found.interval is None
    assert found.n == n
    assert math.isnan(found.mean) if n == 0 else found.mean == 3.0


@pytest.mark.parametrize("n", [2, 9, 10, 50])
def test_equal_values_have_no_width_and_no_warning(n: int) -> None:
    found = interval([0.1] * n)
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("n", [10, 30])
def test_nearly_equal_values_still_have_an_interval(n: int) -> None:
    found = interval([1.0] * (n - 1) + [2.0])
    assert found.low is not None
    assert found.high is not None
    assert 1.0 <= found.low <= found.mean <= found.high <= 2.0
    assert found.high > found.low


def test_geometric() -> None:
    found = interval([1e-6, 1e-4, 1e-2], geometric=True)
    inner = interval([-6.0, -4.0, -2.0])
    assert found.geometric
    assert found.mean == pytest.approx(1e-4)
    assert inner.low is not None
    assert found.low == pytest.approx(10**inner.low)
    assert found.low is not None
    assert found.high is not None
    assert found.mean / found.low == pytest.approx(found.high / found.mean), "symmetric as a factor"


def test_two_values_that_are_too_far_apart_for_floats() -> None:
    found = interval([1e-30, 1e30], geometric=True)
    assert found.mean == pytest.approx(1.0)
    assert found.low is not None
    assert found.high is not None
    assert 0.0 < found.low < found.high < math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        interval([1.0, bad])


@pytest.mark.parametrize("bad", [0.0, -1e-17])
def test_a_geometric_mean_needs_positive_values(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        interval([1.0, bad], geometric=True)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        interval([1.0, 2.0], confidence)


def coverage(n: int, confidence: float, repeats: int, geometric: bool = False) -> float:
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(repeats):
        draws = rng.normal(2.0, 1.0, n)
        found = interval(10.0**draws if geometric else draws, confidence, geometric=geometric)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= (100.0 if geometric else 2.0) <= found.high
    return hits / repeats


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_coverage_of_the_t_interval(n: int, confidence: float) -> None:
    repeats = 4000
    noise = 4.0 * math.sqrt(confidence * (1 - confidence) / repeats)
    assert coverage(n, confidence, repeats) == pytest.approx(confidence, abs=noise)


def test_coverage_on_the_logarithm() -> None:
    assert coverage(3, 0.95, 2000, geometric=True) == pytest.approx(0.95, abs=4.0 * math.sqrt(0.95 * 0.05 / 2000))


def test_coverage_of_the_bootstrap() -> None:
    # BCa of ten normal values is known to cover less than it says: about 0.91 (0.90 to 0.92 in the literature).
    assert 0.86 <= coverage(10, 0.95, 400) <= 0.96
    assert 0.90 <= coverage(30, 0.95, 300) <= 0.98


def known(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 3)


def test_within_noise_of_the_best() -> None:
    estimates = [known(1, 2), known(1.5, 9), known(2.5, 3), None, Estimate(0.0, None, None, 1)]
    assert within_noise(estimates, "min") == [True, True, False, False, False]
    assert within_noise(estimates, "max") == [True, True, True, False, False]


def test_nobody_is_best_without_an_interval() -> None:
    assert within_noise([Estimate(1.0, None, None, 1), None], "min") == [False, False]
    assert within_noise([], "max") == []


@given(st.lists(st.tuples(FINITE, st.floats(0, 1e3)), min_size=1, max_size=8))
def test_the_best_is_among_the_best(pairs: list[tuple[float, float]]) -> None:
    estimates = [Estimate(mean, mean - half, mean + half, 3) for mean, half in pairs]
    means = [e.mean for e in estimates]
    assert within_noise(estimates, "min")[int(np.argmin(means))]
    assert within_noise(estimates, "max")[int(np.argmax(means))]
