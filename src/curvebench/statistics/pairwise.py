"""Two methods against each other, inside seed blocks; many such comparisons without false alarms.

Letters: n seed blocks; x, y the values of two methods, paired by block; d = x - y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curvebench.statistics.estimate import Estimate
from curvebench.types import FloatArray


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two methods.

    Args:
        difference: mean of x - y, or the geometric mean of x / y where ``geometric``, with its Student t interval.
        p: two-sided, of the paired t test; 1 where there is nothing to test.
        improvement: probability that x is better than y, see :func:`improvement`.
        n: seed blocks that both have.
        spread: standard deviation of the differences (of log10 ratios where ``geometric``); NaN below two.
    """

    difference: Estimate
    p: float
    improvement: Estimate
    n: int
    spread: float


def compare(
    x: FloatArray,
    y: FloatArray,
    direction: Literal["min", "max"] = "min",
    confidence: float = 0.95,
    *,
    geometric: bool = False,
) -> Comparison:
    """Compare two methods in the seed blocks that both have.

    Args:
        x: ``[n]``, NaN where a run is missing.
        y: ``[n]``.
        direction: ``min`` if less is better.
        confidence: of the intervals.
        geometric: compare logarithms: the difference is then a factor; values must be positive.

    Raises:
        ValueError: lengths differ, or a value is not positive where ``geometric``.
    """
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"{list(x.shape)} and {list(y.shape)} values: need pairs")
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if geometric and ((x <= 0.0).any() or (y <= 0.0).any()):
        raise ValueError("values must be positive for a ratio")
    better = improvement(x, y, direction, confidence)
    d = np.log10(x) - np.log10(y) if geometric else x - y
    n = d.size
    if n == 0:
        return Comparison(Estimate(math.nan, None, None, 0, geometric=geometric), 1.0, better, 0, math.nan)
    mean = float(d.mean())
    if n == 1 or np.ptp(d) == 0.0:
        known = n > 1
        value = 10.0**mean if geometric else mean
        end = value if known else None
        p = 0.0 if known and mean != 0.0 else 1.0
        only = Estimate(value, end, end, n, geometric=geometric)
        return Comparison(only, p, better, n, 0.0 if known else math.nan)
    from scipy import stats

    found = stats.ttest_1samp(d, 0.0)
    ends = found.confidence_interval(confidence)
    low, high = float(ends.low), float(ends.high)
    if geometric:
        mean, low, high = (10.0 ** min(max(v, -307.0), 308.0) for v in (mean, low, high))
    return Comparison(
        Estimate(mean, low, high, n, geometric=geometric), float(found.pvalue), better, n, float(d.std(ddof=1))
    )


def compare_all(
    values: FloatArray,
    chosen: Sequence[tuple[int, int]],
    direction: Literal["min", "max"] = "min",
    confidence: float = 0.95,
    *,
    logarithms: bool = False,
) -> list[Comparison]:
    """:func:`compare` of many pairs of columns of ``values`` ``[n, m]``, with one call of SciPy for all of them.

    Args:
        values: one row per seed block; log10 of what is compared where ``logarithms``.
        chosen: pairs of columns.
        direction: ``min`` if less is better.
        confidence: of the intervals.
        logarithms: report factors.
    """
    n = len(values)
    first, second = ([pair[side] for pair in chosen] for side in (0, 1))
    d = values[:, first] - values[:, second] if chosen else np.zeros((n, 0))
    plain = np.isfinite(d).all(axis=0) & (np.ptp(d, axis=0) > 0.0) if n > 1 else np.zeros(len(chosen), dtype=bool)
    if plain.any():
        from scipy import stats

        test = stats.ttest_1samp(d[:, plain], 0.0, axis=0)
        ends = test.confidence_interval(confidence)
        found = np.full((4, len(chosen)), math.nan)
        found[:, plain] = d[:, plain].mean(axis=0), ends.low, ends.high, test.pvalue
        better = improvements(
            values, [pair for pair, usual in zip(chosen, plain, strict=True) if usual], direction, confidence
        )
        spread = d[:, plain].std(axis=0, ddof=1)
    out, at = [], 0
    for k, (a, b) in enumerate(chosen):
        if not plain[k]:
            x, y = values[:, a], values[:, b]
            out.append(
                compare(10.0**x, 10.0**y, direction, confidence, geometric=True)
                if logarithms
                else compare(x, y, direction, confidence)
            )
            continue
        mean, low, high = (10.0 ** min(max(float(v), -307.0), 308.0) if logarithms else float(v) for v in found[:3, k])
        estimate = Estimate(mean, low, high, n, geometric=logarithms)
        out.append(Comparison(estimate, float(found[3, k]), better[at], n, float(spread[at])))
        at += 1
    return out


def improvements(
    values: FloatArray,
    chosen: Sequence[tuple[int, int]],
    direction: Literal["min", "max"] = "min",
    confidence: float = 0.95,
) -> list[Estimate]:
    """:func:`improvement` of many pairs of columns of ``values`` ``[n, m]`` with n > 0, from ranks.

    ``T[i, a, b]`` is twice the number of blocks j in which ``values[j, b]`` is worse than ``values[i, a]``, ties
    counted once: m searches in sorted columns instead of m^2 tables of pairs. Block i's share in U is
    ``(T[i, a, b] + 2 n - T[i, b, a]) / 2 n``.

    Raises:
        ValueError: a value of a chosen column is not finite.
    """
    from scipy.special import stdtrit

    n = len(values)
    if not chosen:
        return []
    used, place = np.unique(np.asarray(chosen), return_inverse=True)
    first, second = place.reshape(-1, 2).T
    x = values[:, used] if direction == "min" else -values[:, used]
    if not np.isfinite(x).all():
        raise ValueError("values must be finite in every block")
    worse = np.empty((n, used.size, used.size), dtype=np.int64)
    for b, column in enumerate(np.sort(x, axis=0).T):
        sides = (np.searchsorted(column, x.ravel(), side=side) for side in ("left", "right"))
        worse[:, :, b] = (2 * n - sum(sides)).reshape(x.shape)  # type: ignore[union-attr]  # a sum of two arrays
    ahead = worse[:, first, second]
    share = ahead + 2 * n - worse[:, second, first]  # whole numbers: equal ones are equal
    means = ahead.sum(axis=0) / (2.0 * n * n)
    if n < 2:
        return [Estimate(float(mean), None, None, n) for mean in means]
    half = float(stdtrit(n - 1, 0.5 + confidence / 2.0)) * (share / (2.0 * n)).std(axis=0, ddof=1) / math.sqrt(n)
    told = np.ptp(share, axis=0) > 0
    return [
        Estimate(mean, max(mean - h, 0.0), min(mean + h, 1.0), n) if known else Estimate(mean, None, None, n)
        for mean, h, known in zip(means.tolist(), half.tolist(), told.tolist(), strict=True)
    ]


def improvement(
    x: FloatArray, y: FloatArray, direction: Literal["min", "max"] = "min", confidence: float = 0.95
) -> Estimate:
    """Probability that a run of x is better than one of y: Mann and Whitney's U over n_x n_y, ties counted half.

    The interval is Student's t over the blocks' shares in U (Hajek's projection), which respects that both methods saw
    the same blocks; clipped to [0, 1]. Where every block says the same there is no spread to judge by: no interval.
    """
    n = x.size
    if n == 0:
        return Estimate(math.nan, None, None, 0)
    better = outcome(x[:, None], y[None, :], direction)
    mean = float(better.mean())
    share = better.mean(axis=1) + better.mean(axis=0)
    if n < 2 or np.ptp(share) == 0.0:
        return Estimate(mean, None, None, n)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + confidence / 2.0)) * float(share.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, max(mean - half, 0.0), min(mean + half, 1.0), n)


def outcome(x: FloatArray, y: FloatArray, direction: Literal["min", "max"]) -> FloatArray:
    """1 where x is better, 1/2 where equal, 0 where y is."""
    d = (y - x) if direction == "min" else (x - y)
    found: FloatArray = 0.5 * (np.sign(d) + 1.0)
    return found


def holm(p: Sequence[float]) -> FloatArray:
    """Holm's adjusted p values ``[k]``: below alpha together they are wrong with probability alpha at most.

    Step down: the j-th smallest times k - j, made monotone, at most 1. SciPy's ``false_discovery_control`` bounds
    another error (the share of false discoveries).

    Raises:
        ValueError: a p value is not in [0, 1].
    """
    raw = np.asarray(p, dtype=np.float64)
    if raw.size and not ((raw >= 0.0) & (raw <= 1.0)).all():
        raise ValueError("p values must lie in [0, 1]")
    order = np.argsort(raw, kind="stable")
    steps = np.maximum.accumulate(raw[order] * (raw.size - np.arange(raw.size)))
    out = np.empty_like(raw)
    out[order] = np.minimum(steps, 1.0)
    return out
