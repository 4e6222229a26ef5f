"""Time to a target with misses: never infinity, never last + 1, and a bound is called a bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curvebench.statistics import interval, to_target

TIMES = st.lists(st.floats(0.0, 1e4), max_size=6)


def test_without_misses_it_is_the_mean_with_its_interval() -> None:
    assert to_target([1.0, 2.0, 4.0]) == interval([1.0, 2.0, 4.0])


def test_with_some_misses_it_is_a_restricted_mean() -> None:
    found = to_target([100.0, 300.0], [500.0])
    assert found.mean == pytest.approx(300.0)
    assert (found.n, found.censored, found.never) == (3, 1, False)
    assert found.interval == interval([100.0, 300.0, 500.0]).interval


def test_with_only_misses_it_is_what_was_consumed() -> None:
    found = to_target([], [500.0, 500.0, 200.0])
    assert found.never
    assert found.mean == pytest.approx(400.0)
    assert found.interval is None


def test_no_runs() -> None:
    found = to_target([])
    assert (found.n, found.censored, found.never) == (0, 0, False)
    assert math.isnan(found.mean)


@pytest.mark.parametrize("bad", [[-1.0], [math.nan], [math.inf]])
def test_times_are_finite_and_not_negative(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="must"):
        to_target(bad)
    with pytest.raises(ValueError, match="must"):
        to_target([1.0], bad)


@given(st.lists(st.floats(1.0, 499.0), min_size=1, max_size=6), st.integers(1, 5))
def test_with_one_budget_it_is_the_area_under_the_kaplan_meier_curve(hits: list[float], misses: int) -> None:
    budget = 500.0
    found = to_target(hits, [budget] * misses)
    times = np.array([*hits, *[budget] * misses])
    curve = stats.ecdf(stats.CensoredData.right_censored(times, np.arange(times.size) >= len(hits))).sf
    edges = np.concatenate([[0.0], curve.quantiles[curve.quantiles < budget], [budget]])
    area = float(np.sum(np.concatenate([[1.0], curve.probabilities[curve.quantiles < budget]]) * np.diff(edges)))
    assert found.mean == pytest.approx(area)


@given(TIMES, TIMES)
def test_it_never_claims_more_than_the_truth(hits: list[float], misses: list[float]) -> None:
    found = to_target(hits, misses)
    if found.n == 0:
        return
    assert math.isfinite(found.mean)
    truth = [*hits, *(2.0 * c + 1.0 for c in misses)]  # whatever the misses would have needed, it is more than c
    assert found.mean <= np.mean(truth) + 1e-9


def test_the_bound_holds_in_expectation_when_censoring_is_unkind() -> None:
    # Slow runs are stopped earliest: Kaplan-Meier's independence is broken, the bound is not.
    rng = np.random.default_rng(0)
    times = rng.exponential(10.0, 5000)
    limits = np.where(times > 12.0, 3.0, 50.0)
    hits, misses = times[times <= limits], limits[times > limits]
    found = to_target(hits[:2000].tolist(), misses[:1000].tolist())
    assert found.high is not None
    assert found.high < 10.0
