"""Who is first, and how sure that is: draws of the means of several methods, ranks, rank intervals.

Letters: m methods, n seed blocks, D draws. Values ``[n, m]`` are paired: row s is seed block s, the same for every
method. What all methods share in a block (its data order, its initial parameters) cancels, because every draw uses the
same blocks for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curvebench.statistics.estimate import BOOTSTRAP_FROM, SEED
from curvebench.types import FloatArray, IntArray

DRAWS = 4000


@dataclass(frozen=True)
class Ranking:
    """Ranks of m methods, 1 the best.

    Args:
        means: over seed blocks ``[m]``; NaN where a method has no value.
        rank: place by mean ``[m]``, ties share the better place; 0 where there is no mean.
        low: lower end of the rank interval ``[m]``.
        high: upper end ``[m]``.
        first: probability of being first ``[m]``; they sum to 1 (a draw's tie is shared).
        n: seed blocks that all methods with a value have.
        confidence: of each interval.
    """

    means: FloatArray
    rank: IntArray
    low: IntArray
    high: IntArray
    first: FloatArray
    n: int
    confidence: float

    @property
    def order(self) -> list[int]:
        """Indices of the methods that have a mean, best first."""
        known = [int(k) for k in np.flatnonzero(self.rank)]
        return sorted(known, key=lambda k: (self.rank[k], self.low[k], self.high[k]))


def rank(values: FloatArray, direction: Literal["min", "max"], confidence: float = 0.95, draws: int = DRAWS) -> Ranking:
    """Rank methods by their mean and say how far a repetition could move each.

    A rank interval holds the middle ``confidence`` of the ranks over draws of all means together
    (:func:`draw_means`). One block has no spread: every interval is then 1 to m.

    Args:
        values: ``[n, m]``, one row per seed block; NaN where a run is missing. Blocks that lack a value of a method
            which has some are left out for all.
        direction: ``min`` if less is better.
        confidence: of every interval, marginally.
        draws: D.

    Raises:
        ValueError: not a matrix, or a confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence = {confidence}: must lie in (0, 1)")
    if values.ndim != 2:
        raise ValueError(f"values of shape {list(values.shape)}: must be [seed blocks, methods]")
    m = values.shape[1]
    present = np.isfinite(values)
    candidates = np.flatnonzero(present.any(axis=0))
    complete = present[:, candidates].all(axis=1) if candidates.size else np.zeros(len(values), dtype=bool)
    none = np.zeros(m, dtype=np.int64)
    means = np.full(m, math.nan)
    if not complete.any():
        for k in candidates:
            means[k] = values[present[:, k], k].mean()
        return Ranking(means, none, none, none, np.zeros(m), 0, confidence)
    x = values[np.ix_(complete, candidates)]
    n = len(x)
    sign = 1.0 if direction == "min" else -1.0
    means[candidates] = x.mean(axis=0)
    places, low, high, first = none.copy(), none.copy(), none.copy(), np.zeros(m)
    places[candidates] = ranks_of(sign * x.mean(axis=0))
    if n == 1:
        low[candidates], high[candidates] = 1, candidates.size
        first[candidates] = 1.0 / candidates.size
        return Ranking(means, places, low, high, first, n, confidence)
    drawn = sign * draw_means(x, draws)
    ranks = ranks_of(drawn)
    tail = (1.0 - confidence) / 2.0
    low[candidates] = np.quantile(ranks, tail, axis=0, method="lower").astype(np.int64)
    worst = ranks_of(drawn, worst=True)
    high[candidates] = np.quantile(worst, 1.0 - tail, axis=0, method="higher").astype(np.int64)
    best = drawn == drawn.min(axis=1, keepdims=True)
    first[candidates] = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return Ranking(means, places, low, high, first, n, confidence)


def draw_means(x: FloatArray, draws: int, seed: int = SEED) -> FloatArray:
    """Plausible means ``[D, m]`` of complete paired values ``[n, m]``, n >= 2.

    From ten blocks on a bootstrap over blocks. Below, where resamples of so few have no tails, draws
    ``mean + sum_i g_i (x_i - mean) / sqrt(n (n - 1)) * sqrt((n - 1) / chi2)``, g_i standard normal: their
    quantiles for any one mean, and for the difference of any two, are the ends of its Student t interval.
    """
    n = len(x)
    rng = np.random.default_rng(seed)
    mean = x.mean(axis=0)
    if n >= BOOTSTRAP_FROM:
        return resample_weights(n, draws, rng) @ x / n
    normal = rng.standard_normal((draws, n))
    scale = np.sqrt((n - 1) / rng.chisquare(n - 1, draws))[:, None]
    found: FloatArray = mean + scale * (normal @ (x - mean)) / math.sqrt(n * (n - 1))
    return found


def resample_weights(n: int, draws: int, rng: np.random.Generator) -> FloatArray:
    """How often each of n blocks is in a resample of n with replacement ``[D, n]``."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=draws).astype(np.float64)


def ranks_of(values: FloatArray, worst: bool = False) -> IntArray:
    """Ranks along the last axis, 1 the least; equal values share the best rank, or the ``worst`` of theirs."""
    order = np.argsort(values, axis=-1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=-1)
    m = values.shape[-1]
    place = np.broadcast_to(np.arange(1, m + 1), ascending.shape)
    if worst:
        new = np.concatenate([ascending[..., :-1] != ascending[..., 1:], np.ones((*ascending.shape[:-1], 1), bool)], -1)
        shared = np.minimum.accumulate(np.where(new, place, m + 1)[..., ::-1], axis=-1)[..., ::-1]
    else:
        new = np.concatenate([np.ones((*ascending.shape[:-1], 1), bool), ascending[..., 1:] != ascending[..., :-1]], -1)
        shared = np.maximum.accumulate(np.where(new, place, 0), axis=-1)
    out = np.empty_like(shared)
    np.put_along_axis(out, order, shared, axis=-1)
    return out
