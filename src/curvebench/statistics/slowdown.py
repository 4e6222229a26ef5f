"""Whether one side of interleaved timings is slower, with a declared power and few false alarms.

``a, b [n]``: seconds of the two sides in n blocks (each the sum of two timings, so that linear drift of the
machine cancels). ``d = log b - log a``. Alarm if d is significantly above ``log(1 + tolerance)``: two processes of
the same code differ by a percent or two for good, because memory lies differently, and no number of samples makes
that a slow-down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

EFFICIENCY = 0.955
"""Asymptotic relative efficiency of Wilcoxon's signed-rank test to the t test under normal noise, 3 / pi."""


class Slowdown(NamedTuple):
    """What n blocks say.

    Args:
        ratio: exp of the Hodges-Lehmann estimate of d: HEAD's time over BASE's.
        low: lower end of its 95 % interval (Walsh averages, signed-rank).
        high: upper end.
        p: one-sided p-value of Wilcoxon's signed-rank test against ``d <= log(1 + tolerance)``.
        noise: robust standard deviation of d, as a fraction: 0.05 is 5 % a block.
        n: blocks.
    """

    ratio: float
    low: float
    high: float
    p: float
    noise: float
    n: int


def slowdown(base: Sequence[float], head: Sequence[float], tolerance: float) -> Slowdown:
    """Compare two sides.

    Args:
        base: seconds of BASE per block, > 0.
        head: seconds of HEAD per block, > 0.
        tolerance: what does not count as slower, >= 0.

    Raises:
        ValueError: fewer than six blocks, other lengths, or a time that is not positive.
    """
    from scipy.stats import wilcoxon

    a, b = np.asarray(base, dtype=float), np.asarray(head, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 6:
        raise ValueError(f"{a.shape} and {b.shape} blocks: need the same number, at least six")
    if not (a > 0).all() or not (b > 0).all():
        raise ValueError("a time is not positive: the clock does not resolve one call, raise the number of calls")
    d = np.log(b) - np.log(a)
    shifted = d - math.log1p(tolerance)
    p = float(wilcoxon(shifted, alternative="greater").pvalue) if np.any(shifted) else 1.0
    centre, low, high = hodges_lehmann(d)
    return Slowdown(math.exp(centre), math.exp(low), math.exp(high), p, noise(d), len(d))


def hodges_lehmann(d: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Median of the Walsh averages of ``d [n]``, and the 95 % interval that inverts the signed-rank test."""
    i, j = np.triu_indices(len(d))
    walsh = np.sort((d[i] + d[j]) / 2)
    n = len(d)
    mean, deviation = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    k = max(int(mean - 1.959964 * deviation), 0)  # normal approximation of the critical value; exact from n = 10 or so
    return float(np.median(walsh)), float(walsh[k]), float(walsh[-1 - k])


def noise(d: npt.NDArray[np.float64]) -> float:
    """Robust standard deviation of ``d [n]``: 1.4826 times the median absolute deviation; does not see a shift."""
    return float(1.4826 * np.median(np.abs(d - np.median(d))))


def blocks_needed(noise: float, tolerance: float, detect: float, alpha: float, power: float) -> int:
    """Blocks with which a slow-down by the fraction ``detect`` raises an alarm with probability ``power``.

    ``n = ((z_(1-alpha) + z_power) s / (log(1 + detect) - log(1 + tolerance)))^2 / 0.955``. It depends on the noise
    alone, not on the difference seen, so that looking at it first does not change the error rate.

    Args:
        noise: s, standard deviation of a block's log ratio.
        tolerance: what does not count as slower.
        detect: what must be found, > tolerance.
        alpha: level of this one test, already divided by the number of tests.
        power: probability of an alarm at ``detect``.

    Raises:
        ValueError: detect <= tolerance.
    """
    from scipy.stats import norm

    gap = math.log1p(detect) - math.log1p(tolerance)
    if gap <= 0:
        raise ValueError(f"detect = {detect}: must be above the tolerance {tolerance}")
    quantiles = float(norm.isf(alpha) + norm.isf(1 - power))
    smallest = math.ceil(math.log2(1 / alpha)) + 1  # below that no outcome of a signed-rank test reaches alpha
    return max(math.ceil((quantiles * noise / gap) ** 2 / EFFICIENCY), smallest, 8)


def detectable(noise: float, n: int, tolerance: float, alpha: float, power: float) -> float:
    """The smallest slow-down, as a fraction, that n blocks find with this power: inverts :func:`blocks_needed`."""
    from scipy.stats import norm

    quantiles = float(norm.isf(alpha) + norm.isf(1 - power))
    return float((1 + tolerance) * math.exp(quantiles * noise / math.sqrt(EFFICIENCY * n)) - 1)
