"""Does an order hold? Kendall's tau between orders of the same methods: over seeds, halves of a budget, threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from curvebench.types import FloatArray


class Agreement(NamedTuple):
    """Mean, least and number of Kendall's tau between pairs of orders; NaN and 0 where no pair can be compared."""

    tau: float
    least: float
    pairs: int


def tau(x: FloatArray, y: FloatArray) -> float:
    """Kendall's tau-b of two lists of values ``[m]`` over the methods that both have; NaN below two methods.

    tau-b counts ties as half agreement; where one list is one single tie, nothing is said: NaN.
    """
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 2 or np.ptp(x[both]) == 0.0 or np.ptp(y[both]) == 0.0:
        return math.nan
    from scipy import stats

    return float(stats.kendalltau(x[both], y[both]).statistic)


def agreement(orders: Sequence[FloatArray]) -> Agreement:
    """Kendall's tau between every two of several lists of values ``[m]``."""
    found = [t for a, b in combinations(orders, 2) if math.isfinite(t := tau(a, b))]
    return Agreement(float(np.mean(found)), min(found), len(found)) if found else Agreement(math.nan, math.nan, 0)
