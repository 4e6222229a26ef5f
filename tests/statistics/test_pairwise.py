"""Paired comparisons against SciPy, Holm against the closure of Bonferroni tests, improvement against Mann-Whitney."""

from __future__ import annotations

import itertools
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curvebench.statistics.pairwise import compare, holm, improvement, improvements


def test_a_comparison_is_scipy_s_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=6), rng.normal(size=6) + 1.0
    found = compare(x, y)
    wanted = stats.ttest_rel(x, y)
    ends = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(float(wanted.pvalue))
    assert found.difference.mean == pytest.approx((x - y).mean())
    assert found.difference.low == pytest.approx(float(ends.low))
    assert found.difference.high == pytest.approx(float(ends.high))
    assert found.spread == pytest.approx((x - y).std(ddof=1))
    assert found.n == 6


def test_a_ratio_is_compared_on_the_logarithm() -> None:
    x, y = np.array([2.0, 4.2, 7.9]), np.array([1.0, 2.0, 4.0])
    found = compare(x, y, geometric=True)
    assert found.difference.geometric
    assert found.difference.mean == pytest.approx(stats.gmean(x / y))
    assert found.p == pytest.approx(float(stats.ttest_rel(np.log10(x), np.log10(y)).pvalue))
    with pytest.raises(ValueError, match="positive"):
        compare(np.zeros(2), y[:2], geometric=True)


def test_pairs_with_a_gap_are_left_out() -> None:
    found = compare(np.array([1.0, math.nan, 3.0]), np.array([2.0, 5.0, math.nan]))
    assert found.n == 1
    assert found.p == 1.0
    assert found.difference.interval is None
    assert compare(np.array([math.nan]), np.array([1.0])).n == 0
    with pytest.raises(ValueError, match="need pairs"):
        compare(np.ones(2), np.ones(3))


def test_the_same_difference_in_every_block() -> None:
    found = compare(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    assert (found.difference.mean, found.p, found.spread) == (-1.0, 0.0, 0.0)
    assert compare(np.ones(3), np.ones(3)).p == 1.0


@given(st.lists(st.integers(0, 6), min_size=2, max_size=7), st.randoms())
def test_improvement_is_mann_whitney_s_u(values: list[int], random: object) -> None:
    x = np.array(values, dtype=float)
    y = np.array([random.randint(0, 6) for _ in values], dtype=float)  # type: ignore[attr-defined]
    u = stats.mannwhitneyu(-x, -y).statistic
    assert improvement(x, y, "min").mean == pytest.approx(u / x.size**2)
    assert improvement(x, y, "max").mean == pytest.approx(1.0 - u / x.size**2)


def test_coverage_of_the_probability_of_improvement() -> None:
    """Normal with means 0.7 apart: the truth is Phi(-(-0.7) / sqrt 2)."""
    truth = float(stats.norm.cdf(0.7 / math.sqrt(2.0)))
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        found = improvement(rng.normal(size=10), rng.normal(size=10) + 0.7)
        inside += found.low is not None and found.high is not None and found.low <= truth <= found.high
    assert 0.90 <= inside / 400 <= 0.99


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for k in range(len(p)):
        others = [i for i in range(len(p)) if i != k]
        sets = [(k, *rest) for size in range(len(p)) for rest in itertools.combinations(others, size)]
        assert adjusted[k] == pytest.approx(min(1.0, max(len(s) * min(p[i] for i in s) for s in sets)))


def test_holm_of_nothing_and_of_nonsense() -> None:
    assert holm([]).size == 0
    with pytest.raises(ValueError, match="0, 1"):
        holm([1.5])


def test_holm_keeps_the_familywise_error() -> None:
    rng = np.random.default_rng(4)
    alarms = sum(holm(rng.random(8)).min() < 0.05 for _ in range(2000))
    assert alarms / 2000 == pytest.approx(0.05, abs=0.02)


@given(st.integers(1, 7), st.integers(2, 4), st.randoms(use_true_random=False), st.sampled_from(["min", "max"]))
def test_many_improvements_by_ranks_are_those_by_pairs(n: int, m: int, random: Random, direction: str) -> None:
    values = np.array([[float(random.randint(0, 5)) for _ in range(m)] for _ in range(n)])
    chosen = [(a, b) for a in range(m) for b in range(m) if a != b]
    found = improvements(values, chosen, direction)  # type: ignore[arg-type]
    for (a, b), estimate in zip(chosen, found, strict=True):
        one = improvement(values[:, a], values[:, b], direction)  # type: ignore[arg-type]
        assert estimate.mean == pytest.approx(one.mean)
        assert (estimate.low is None) == (one.low is None)
        if one.low is not None:
            assert (estimate.low, estimate.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_many_improvements_need_whole_columns() -> None:
    assert improvements(np.zeros((3, 2)), []) == []
    with pytest.raises(ValueError, match="finite in every block"):
        improvements(np.array([[1.0, math.nan], [2.0, 3.0]]), [(0, 1)])
