"""Kendall's tau between orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curvebench.statistics.stability import agreement, tau


@given(st.permutations(range(6)))
def test_tau_counts_pairs(order: list[int]) -> None:
    pairs = list(itertools.combinations(range(6), 2))
    agree = sum(order[a] < order[b] for a, b in pairs)
    assert tau(np.arange(6.0), np.array(order, dtype=float)) == pytest.approx((2 * agree - len(pairs)) / len(pairs))


def test_gaps_and_ties() -> None:
    assert tau(np.array([1.0, 2.0, math.nan]), np.array([5.0, 6.0, 0.0])) == 1.0
    assert math.isnan(tau(np.array([1.0]), np.array([1.0])))
    assert math.isnan(tau(np.ones(3), np.arange(3.0)))


def test_agreement_of_several_orders() -> None:
    up, down = np.arange(4.0), -np.arange(4.0)
    found = agreement([up, up, down])
    assert (found.tau, found.least, found.pairs) == (pytest.approx(-1 / 3), -1.0, 3)
    assert agreement([up]).pairs == 0
