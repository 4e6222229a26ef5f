"""Best of k: what tuning with a budget of k trials buys, for every k, out of one stored pool.

Letters: N trials of a pool, values v_(1) better than v_(2) ..., f of them failed (diverged, crashed, timed out, never
evaluated: each is a trial that was paid for and that cannot win).

Drawing k of the N without replacement, ``P(best is v_(i)) = C(N - i, k - 1) / C(N, k)``, so
``E best(k) = sum_i v_(i) C(N - i, k - 1) / C(N, k)``: exact, no simulation, unbiased for the search space at every k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curvebench.statistics.estimate import SEED
from curvebench.types import FloatArray

DRAWS = 2000


@dataclass(frozen=True)
class BestOf:
    """Best of k for k = 1 .. N, all ``[N]``.

    Args:
        expected: mean of the best; a draw in which every trial failed counts as ``worst``.
        low: lower end of the interval of :attr:`expected`: the pool drawn again.
        high: upper end.
        unlucky: what 9 of 10 people with k trials beat, infinite (or minus) where a tenth find nothing.
        lucky: what 1 of 10 beat.
        failed: probability that all k failed.
        seconds: expected cost of k trials.
        worst: what counts for a draw in which every trial failed.
    """

    expected: FloatArray
    low: FloatArray
    high: FloatArray
    unlucky: FloatArray
    lucky: FloatArray
    failed: FloatArray
    seconds: FloatArray
    worst: float


def best_of(
    values: Sequence[float | None],
    direction: Literal["min", "max"],
    worst: float,
    seconds: float = math.nan,
    confidence: float = 0.95,
    draws: int = DRAWS,
    *,
    geometric: bool = False,
) -> BestOf:
    """Expected best of k for every k with its band.

    Args:
        values: final metric of every trial of the pool; None for one that failed.
        direction: ``min`` if less is better.
        worst: the metric that a failed trial leaves one with: that of the untrained task, the same for all methods.
        seconds: what the whole pool cost.
        confidence: of the band.
        draws: pools drawn again for the band.
        geometric: average logarithms, for a metric that spans decades.

    Raises:
        ValueError: an empty pool, a value that is not finite, or not positive where ``geometric``.
    """
    if not values:
        raise ValueError("an empty pool: need at least one trial")
    ok = np.array([math.nan if v is None else float(v) for v in values])
    known = [v for v in values if v is not None] + [worst]
    if not all(math.isfinite(v) for v in known):
        raise ValueError("metrics must be finite: a trial without one failed and is None")
    if geometric and min(known) <= 0.0:
        raise ValueError("metrics must be positive for a geometric mean")
    sign = 1.0 if direction == "min" else -1.0
    size = ok.size
    filled = np.where(np.isnan(ok), worst, ok)
    # A trial that did worse than doing nothing is not chosen over doing nothing.
    filled = sign * np.minimum(sign * filled, sign * worst)
    scale = np.log10(filled) if geometric else filled
    chance = order_chances(size)
    expected = sorted_best(sign * scale) @ chance.T
    rng = np.random.default_rng(SEED)
    again = sorted_best(sign * scale[rng.integers(size, size=(draws, size))]) @ chance.T
    tail = (1.0 - confidence) / 2.0
    ends = np.quantile(again, [tail, 1.0 - tail], axis=0)
    ends = np.sort(np.stack([unscaled(sign * end, geometric) for end in ends]), axis=0)
    lost = int(np.isnan(ok).sum())
    ranked = np.sort(np.where(np.isnan(ok), math.inf, sign * ok))
    below = np.cumsum(chance, axis=1)
    return BestOf(
        unscaled(sign * expected, geometric),
        np.minimum(ends[0], unscaled(sign * expected, geometric)),
        np.maximum(ends[1], unscaled(sign * expected, geometric)),
        sign * ranked[np.argmax(below >= 0.9 - 1e-12, axis=1)],
        sign * ranked[np.argmax(below >= 0.1 - 1e-12, axis=1)],
        np.array([math.comb(lost, k) / math.comb(size, k) for k in range(1, size + 1)]),
        seconds * np.arange(1, size + 1) / size,
        worst,
    )


def order_chances(size: int) -> FloatArray:
    """``[N, N]``: row k-1, column i-1 holds the probability that the best of k is the i-th best of the pool."""
    return np.array(
        [[math.comb(size - i, k - 1) / math.comb(size, k) for i in range(1, size + 1)] for k in range(1, size + 1)]
    )


def sorted_best(values: FloatArray) -> FloatArray:
    """Least first along the last axis."""
    found: FloatArray = np.sort(values, axis=-1)
    return found


def unscaled(values: FloatArray, geometric: bool) -> FloatArray:
    """Back from logarithms."""
    return 10.0**values if geometric else values
