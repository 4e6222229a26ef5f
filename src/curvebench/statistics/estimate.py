"""The mean of a few values and an interval that says how little they tell.

Letters: n values, confidence c (0.95 by default), half-width h.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from curvebench.types import FloatArray

BOOTSTRAP_FROM = 10
"""From this n on the bootstrap is used; below it resamples are too few to have tails, and Student's t is exact for
normal values."""

RESAMPLES = 2999
SEED = 20250731
"""Fixed: the same records give the same table, digit for digit."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Args:
        mean: of the n values; geometric if ``geometric``; a lower bound if ``censored``; NaN if n is 0.
        low: lower end of the interval, or None where n is too small to have one.
        high: upper end, or None.
        n: number of values, misses included.
        censored: how many of the n are misses: with some, ``mean`` is the restricted mean and a lower bound; with
            n of n, it is what was consumed, and the truth is larger.
        geometric: mean and interval were computed on the logarithm.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    censored: int = 0
    geometric: bool = False

    @property
    def interval(self) -> tuple[float, float] | None:
        """The two ends, or None where there is no interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def never(self) -> bool:
        """Every one of the n runs missed."""
        return self.n > 0 and self.censored == self.n


def interval(values: Iterable[float], confidence: float = 0.95, *, geometric: bool = False) -> Estimate:
    """Estimate the mean: ``mean +- t(n-1, (1+c)/2) s / sqrt(n)`` for 2 <= n < 10, a BCa bootstrap from 10 on.

    One value has no interval. Equal values have one of zero width. BCa's fallback, where its correction is undefined
    (nearly all values equal), is the percentile bootstrap.

    Args:
        values: finite numbers, independent, in any order.
        confidence: of the two-sided interval, in (0, 1).
        geometric: work on the logarithm; the mean is then geometric and the interval symmetric as a factor.

    Raises:
        ValueError: a value is not finite, or not positive where ``geometric``; ``confidence`` outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence = {confidence}: must lie in (0, 1)")
    x = np.asarray(list(values), dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("values must be finite: count the others apart")
    if geometric:
        if (x <= 0.0).any():
            raise ValueError("values must be positive for a geometric mean")
        inner = interval(np.log10(x), confidence)
        # Two seeds decades apart have an interval that no float holds.
        low, high = (None if end is None else 10.0 ** min(max(end, -307.0), 308.0) for end in (inner.low, inner.high))
        return Estimate(10.0**inner.mean, low, high, inner.n, geometric=True)
    n = x.size
    if n == 0:
        return Estimate(math.nan, None, None, 0)
    mean = float(x.mean())
    if n == 1:
        return Estimate(mean, None, None, 1)
    if np.ptp(x) == 0.0:
        return Estimate(float(x[0]), float(x[0]), float(x[0]), n)
    if n < BOOTSTRAP_FROM:
        half = half_width(x, confidence)
        return Estimate(mean, mean - half, mean + half, n)
    low, high = bootstrap(x, confidence)
    return Estimate(mean, low, high, n)


def half_width(x: FloatArray, confidence: float) -> float:
    """Half the Student t interval of the mean of ``x`` ``[n]``, n >= 2."""
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without that module's second of import

    quantile = float(stdtrit(x.size - 1, 0.5 + confidence / 2.0))
    return quantile * float(x.std(ddof=1)) / math.sqrt(x.size)


def bootstrap(x: FloatArray, confidence: float) -> tuple[float, float]:
    """The BCa interval of the mean of ``x`` ``[n]`` (Efron, 1987), else the percentile interval."""
    from scipy import stats  # a second of import that fewer than ten seeds never need

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # degenerate data: seen from the NaN below
            found = stats.bootstrap(
                (x,),
                np.mean,
                confidence_level=confidence,
                n_resamples=RESAMPLES,
                method=method,
                rng=np.random.default_rng(SEED),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return float(found.low), float(found.high)
