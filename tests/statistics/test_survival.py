"""Kaplan-Meier, restricted means, log-rank: against SciPy, brute force, a textbook's data and simulated coverage."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curvebench.statistics import interval, survival
from curvebench.statistics.survival import area, common_horizon, kaplan_meier, log_rank, rate, restricted_mean

TIMES = st.lists(st.integers(1, 60).map(lambda k: k / 2), max_size=7)

# Freireich et al. (1963): weeks in remission of 21 children with 6-MP, 12 of them censored, and of 21 with placebo.
DRUG = [6, 6, 6, 7, 10, 13, 16, 22, 23]
CENSORED = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def product_limit(hits: list[float], misses: list[float], t: float) -> float:
    """S(t) by its definition."""
    share = 1.0
    for time in sorted({h for h in hits if h <= t}):
        risk = sum(x >= time for x in [*hits, *misses])
        share *= 1.0 - hits.count(time) / risk
    return share


@given(TIMES, TIMES)
def test_the_curve_is_the_product_limit(hits: list[float], misses: list[float]) -> None:
    if not hits + misses:
        return
    curve = kaplan_meier(hits, misses)
    for t in np.arange(0.0, 32.0, 0.5):
        assert float(curve.at(t)) == pytest.approx(product_limit(hits, misses, t))


def test_a_textbook_s_curve() -> None:
    curve = kaplan_meier(DRUG, CENSORED)
    wanted = {6: 18 / 21, 7: 18 / 21 * 16 / 17, 10: 18 / 21 * 16 / 17 * 14 / 15}
    for week, share in wanted.items():
        assert float(curve.at(float(week))) == pytest.approx(share)
    assert curve.median == 23
    assert kaplan_meier(PLACEBO).median == 8
    assert (curve.n, curve.hits, curve.followed) == (21, 9, 35)


def test_log_rank_is_scipy_s_and_says_who_is_sooner() -> None:
    found = log_rank((PLACEBO, []), (DRUG, CENSORED))
    wanted = stats.logrank(
        stats.CensoredData(PLACEBO), stats.CensoredData.right_censored(DRUG + CENSORED, [0] * 9 + [1] * 12)
    )
    assert found.p == pytest.approx(float(wanted.pvalue))
    assert found.statistic**2 == pytest.approx(16.79, abs=0.01)
    assert found.statistic > 0.0, "placebo's remissions end sooner"
    assert log_rank((DRUG, CENSORED), (PLACEBO, [])).statistic == pytest.approx(-found.statistic)
    assert log_rank(([], [3.0]), ([], [4.0])) == (0.0, 1.0)


def test_a_run_that_diverged_stays_at_risk_throughout() -> None:
    lost = kaplan_meier([1.0, 2.0], [math.inf])
    assert lost.missing.tolist() == pytest.approx([2 / 3, 1 / 3])
    # Followed only to 1.5 it would have left the risk set and flattered the method.
    assert float(kaplan_meier([1.0, 2.0], [1.5]).at(2.0)) == 0.0
    assert restricted_mean([1.0, 2.0], [math.inf], 10.0).mean == pytest.approx((1 + 2 + 10) / 3)
    assert log_rank(([1.0, 2.0], [math.inf]), ([1.0, 2.0, 2.5], [])).statistic < 0.0


@given(TIMES, TIMES, st.floats(0.5, 40.0))
def test_area_is_the_integral(hits: list[float], misses: list[float], tau: float) -> None:
    if not hits + misses:
        return
    times, hit = survival.checked(hits, misses)
    edges = np.unique(np.concatenate([[0.0], np.minimum(times, tau), [tau]]))
    wanted = sum((b - a) * product_limit(hits, misses, a) for a, b in pairwise(edges))
    assert float(area(times, hit, tau)) == pytest.approx(wanted)


def test_weights_repeat_runs() -> None:
    rng = np.random.default_rng(0)
    times, hit = rng.exponential(5.0, 6), rng.random(6) < 0.7
    weights = rng.multinomial(6, [1 / 6] * 6, size=20).astype(float)
    for w, found in zip(weights, area(times, hit, 8.0, weights), strict=True):
        picks = np.repeat(np.arange(6), w.astype(int))
        assert found == pytest.approx(float(area(times[picks], hit[picks], 8.0)))


def test_without_early_losses_it_is_the_mean_of_the_clipped_times() -> None:
    found = restricted_mean([1.0, 3.0, 4.0], [5.0], 5.0)
    plain = interval([1.0, 3.0, 4.0, 5.0])
    assert found.mean == pytest.approx(plain.mean)
    assert found.censored == 1
    assert found.low == pytest.approx(max(plain.low or 0.0, 0.0))
    assert found.high == pytest.approx(min(plain.high or 0.0, 5.0))


def test_pseudo_values_average_to_the_estimate_of_a_linear_case() -> None:
    times, hit = survival.checked([1.0, 2.0, 6.0, 7.0], [3.0, 8.0])
    values = survival.pseudo_values(times, hit, 8.0)
    assert values.mean() == pytest.approx(float(area(times, hit, 8.0)), rel=0.05)
    assert values[4] > 3.0, "a run that was lost at 3 is credited with what runs like it needed"


def test_a_horizon_beyond_what_is_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"horizon = 9.0: the last miss was followed to 4.0 only"):
        restricted_mean([1.0], [4.0], 9.0)
    assert restricted_mean([5.0], [4.0], 9.0).mean == pytest.approx(5.0), "the curve is 0 from 5 on"
    with pytest.raises(ValueError, match="must be positive"):
        restricted_mean([1.0], [], 0.0)
    for bad in (([], []), ([math.nan], []), ([-1.0], []), ([math.inf], [])):
        with pytest.raises(ValueError, match=r"need at least one|must be"):
            kaplan_meier(*bad)


def test_common_horizon() -> None:
    def rows(*pairs: tuple[list[float], list[float]]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [survival.checked(*pair) for pair in pairs]

    assert common_horizon(rows(([1.0], [9.0]), ([2.0, 3.0], []))) == 9.0
    assert common_horizon(rows(([1.0], [9.0]), ([2.0], [5.0]))) == 5.0
    assert common_horizon(rows(([1.0, 4.0], []), ([3.0], []))) == 4.0
    assert common_horizon([]) is None


def test_one_run_has_no_interval() -> None:
    assert restricted_mean([2.0]).interval is None
    assert restricted_mean([], [2.0, 3.0]).interval is None


@pytest.mark.parametrize("n", [5, 12])
def test_coverage_under_censoring(n: int) -> None:
    """Times exponential with mean 10, lost at random, restricted to 15: the truth is 10 (1 - exp(-1.5))."""
    rng = np.random.default_rng(n)
    truth, inside, repeats = 10.0 * (1.0 - math.exp(-1.5)), 0, 300 if n < 10 else 60
    for _ in range(repeats):
        times, limits = rng.exponential(10.0, n), np.where(rng.random(n) < 0.2, rng.uniform(2.0, 15.0, n), 15.0)
        hits, misses = times[times <= limits], limits[times > limits]
        horizon = min(15.0, survival.known_until(*survival.checked(hits.tolist(), misses.tolist())))
        if horizon < 15.0:
            misses = np.append(misses[:-1], 15.0)
        found = restricted_mean(hits.tolist(), misses.tolist(), 15.0)
        inside += found.low is not None and found.high is not None and found.low <= truth <= found.high
    assert 0.88 <= inside / repeats <= 0.995


def test_a_rate_has_the_exact_interval() -> None:
    found = rate(1, 10)
    exact = stats.binomtest(1, 10).proportion_ci(0.95, method="exact")
    assert (found.mean, found.low, found.high) == (0.1, float(exact.low), float(exact.high))
    assert rate(0, 3).low == 0.0
    assert rate(3, 3).high == 1.0
    with pytest.raises(ValueError, match="4 of 3"):
        rate(4, 3)
