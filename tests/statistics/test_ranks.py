"""Ranks, rank intervals and the draws behind them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curvebench.statistics.ranks import draw_means, rank, ranks_of


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_ranks_are_scipy_s(values: list[int]) -> None:
    x = np.array(values, dtype=float)
    assert ranks_of(x).tolist() == stats.rankdata(x, "min").tolist()
    assert ranks_of(x, worst=True).tolist() == stats.rankdata(x, "max").tolist()
    assert ranks_of(np.stack([x, -x]))[1].tolist() == stats.rankdata(-x, "min").tolist()


@pytest.mark.parametrize("n", [3, 5])
def test_draws_of_few_blocks_have_student_s_quantiles(n: int) -> None:
    x = np.random.default_rng(n).normal(size=(n, 2)) * [1.0, 3.0]
    drawn = draw_means(x, 200_000)
    for column, values in ((drawn[:, 0], x[:, 0]), (drawn[:, 1] - drawn[:, 0], x[:, 1] - x[:, 0])):
        low, high = stats.t.interval(0.9, n - 1, loc=values.mean(), scale=stats.sem(values))
        found = np.quantile(column, [0.05, 0.95])
        assert found == pytest.approx([low, high], abs=0.03 * (high - low))


def test_draws_of_many_blocks_are_a_bootstrap() -> None:
    x = np.random.default_rng(0).exponential(size=(20, 1))
    found = draw_means(x, 20_000)[:, 0]
    assert found.std() == pytest.approx(x.std() / math.sqrt(20), rel=0.03)


def test_shared_noise_cancels() -> None:
    blocks = np.random.default_rng(1).normal(scale=100.0, size=(5, 1))
    found = rank(blocks + np.array([[1.0, 2.0, 3.0]]) + np.random.default_rng(2).normal(scale=0.01, size=(5, 3)), "min")
    assert found.rank.tolist() == [1, 2, 3]
    assert found.low.tolist() == found.high.tolist() == [1, 2, 3], "paired: the blocks' own noise does not matter"


def test_the_direction_counts() -> None:
    x = np.array([[1.0, 5.0], [1.1, 5.2], [0.9, 4.8]])
    assert rank(x, "min").rank.tolist() == [1, 2]
    assert rank(x, "max").rank.tolist() == [2, 1]
    assert rank(x, "max").first[1] > 0.98


def test_what_is_missing() -> None:
    x = np.array([[1.0, 2.0, math.nan], [1.5, math.nan, math.nan], [1.2, 2.5, math.nan]])
    found = rank(x, "min")
    assert found.n == 2, "a block counts only if everybody who has values has one there"
    assert found.rank.tolist() == [1, 2, 0]
    assert found.order == [0, 1]
    assert found.first.sum() == pytest.approx(1.0)
    never_together = rank(np.array([[1.0, math.nan], [math.nan, 2.0]]), "min")
    assert never_together.n == 0
    assert never_together.order == []


def test_one_block_says_nothing_about_the_order() -> None:
    found = rank(np.array([[3.0, 1.0, 2.0]]), "min")
    assert found.rank.tolist() == [3, 1, 2]
    assert found.low.tolist() == [1, 1, 1]
    assert found.high.tolist() == [3, 3, 3]


def test_equal_methods_share_a_place() -> None:
    found = rank(np.ones((4, 3)), "min")
    assert found.rank.tolist() == [1, 1, 1]
    assert (found.low.tolist(), found.high.tolist()) == ([1, 1, 1], [3, 3, 3])
    assert found.first.tolist() == pytest.approx([1 / 3] * 3)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"must be .seed blocks, methods"):
        rank(np.ones(3), "min")
    with pytest.raises(ValueError, match="confidence"):
        rank(np.ones((3, 2)), "min", confidence=1.0)


@pytest.mark.parametrize("n", [3, 5, 12])
def test_coverage_of_rank_intervals(n: int) -> None:
    """Five methods a standard deviation apart: the true ranks lie inside about as often as promised."""
    truth = np.arange(5) * 1.0
    rng = np.random.default_rng(n)
    inside = total = 0
    for _ in range(150):
        found = rank(truth + rng.normal(size=(n, 1)) + rng.normal(size=(n, 5)), "min", draws=500)
        inside += int(((found.low <= np.arange(1, 6)) & (np.arange(1, 6) <= found.high)).sum())
        total += 5
    assert inside / total >= 0.93


def test_ties_of_draws_are_shared_exactly() -> None:
    # Every order of three binary columns: the probabilities of being first always sum to one.
    for columns in itertools.product([0.0, 1.0], repeat=3):
        x = np.array([columns, columns, [c + 1e-3 * k for k, c in enumerate(columns)]])
        assert rank(x, "min", draws=200).first.sum() == pytest.approx(1.0)
