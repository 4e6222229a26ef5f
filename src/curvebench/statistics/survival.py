"""Time to a target when some runs never got there: Kaplan-Meier curves, restricted means, log-rank tests.

Letters: n runs; T_i the time of run i to the target, C_i what it had consumed when it ended without it (censored);
S(t) the share that still misses the target at t; tau the horizon that a restricted mean is taken over.

A run that diverged never reaches: it is handed in as a miss that was followed to the end of the axis (``math.inf`` is
allowed there), so it stays at risk throughout. SciPy's estimator and test are used; SciPy has no restricted mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from curvebench.statistics.estimate import BOOTSTRAP_FROM, RESAMPLES, SEED, Estimate, half_width
from curvebench.types import BoolArray, FloatArray


@dataclass(frozen=True)
class Survival:
    """A Kaplan-Meier curve: S(t) is 1 before the first of ``times`` and ``missing[k]`` from ``times[k]`` on.

    Args:
        times: where S falls, ascending ``[k]``.
        missing: S from there on ``[k]``, descending.
        n: number of runs.
        hits: how many reached the target.
        followed: the longest that any run was followed; beyond it S is not known unless it is 0.
    """

    times: FloatArray
    missing: FloatArray
    n: int
    hits: int
    followed: float

    def at(self, t: FloatArray | float) -> FloatArray:
        """S(t), one value per t; beyond :attr:`followed` the last value, which is then an upper bound."""
        padded = np.concatenate([[1.0], self.missing])
        found: FloatArray = padded[np.searchsorted(self.times, np.asarray(t, dtype=np.float64), side="right")]
        return found

    @property
    def median(self) -> float:
        """The first time at which at most half of the runs still miss; infinite where there is none."""
        below = np.flatnonzero(self.missing <= 0.5 + 1e-12)
        return float(self.times[below[0]]) if below.size else math.inf


def kaplan_meier(reached: Sequence[float], missed: Sequence[float] = ()) -> Survival:
    """Estimate S(t) from hits and right-censored misses.

    Args:
        reached: T_i of the runs that reached the target.
        missed: C_i of those that did not; infinite for a run that diverged.

    Raises:
        ValueError: no run, a negative time, a NaN, or an infinite hit.
    """
    times, hit = checked(reached, missed)
    if not reached:
        return Survival(np.zeros(0), np.zeros(0), times.size, 0, float(times.max()))
    from scipy import stats  # a second of import that only misses and tests need

    finite = np.where(np.isinf(times), times[np.isfinite(times)].max() + 1.0, times)
    curve = stats.ecdf(stats.CensoredData.right_censored(finite, ~hit)).sf
    falls = np.isin(curve.quantiles, finite[hit])
    return Survival(
        np.asarray(curve.quantiles, dtype=np.float64)[falls],
        np.asarray(curve.probabilities, dtype=np.float64)[falls],
        times.size,
        int(hit.sum()),
        float(times.max()),
    )


def restricted_mean(
    reached: Sequence[float],
    missed: Sequence[float] = (),
    horizon: float | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Mean of min(T, tau): the area under the Kaplan-Meier curve over [0, tau].

    Its interval is Student's t over the jackknife pseudo-values ``n m - (n - 1) m_(-i)`` below ten runs and a BCa
    bootstrap from ten on. Without misses before tau the pseudo-values are min(T_i, tau) themselves.

    Args:
        reached: T_i.
        missed: C_i.
        horizon: tau; None: as far as the curve is known.
        confidence: of the two-sided interval.

    Raises:
        ValueError: as :func:`kaplan_meier`, or a horizon that is not positive, or beyond what is known.
    """
    times, hit = checked(reached, missed)
    known = known_until(times, hit)
    tau = (known if math.isfinite(known) else float(times[hit].max())) if horizon is None else horizon
    if not 0.0 < tau < math.inf:
        raise ValueError(f"horizon = {tau}: must be positive and finite")
    if tau > known * (1.0 + 1e-12):
        raise ValueError(f"horizon = {tau}: the last miss was followed to {known} only")
    n = times.size
    mean = float(area(times, hit, tau))
    estimate = Estimate(mean, None, None, n, censored=int(n - hit.sum()))
    if n == 1 or not hit.any():
        return estimate
    values = pseudo_values(times, hit, tau)
    if np.ptp(values) == 0.0:
        return replace(estimate, low=mean, high=mean)
    if n < BOOTSTRAP_FROM:
        half = half_width(values, confidence)
        return replace(estimate, low=max(mean - half, 0.0), high=min(mean + half, tau))
    from scipy import stats

    found = stats.bootstrap(
        (times, hit.astype(np.float64)),
        lambda t, h, axis=-1: area(t, h > 0.5, tau),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return replace(estimate, low=float(found.low), high=float(found.high))


def area(times: FloatArray, hit: BoolArray, tau: float, weights: FloatArray | None = None) -> FloatArray:
    """Area under the Kaplan-Meier curve over [0, tau] ``[...]`` of runs ``[..., n]``; ``weights`` repeat runs.

    At equal times hits come before misses, as everywhere in survival analysis.
    """
    order = np.lexsort((~np.asarray(hit, dtype=bool), times), axis=-1)
    t = np.take_along_axis(np.broadcast_to(times, order.shape), order, axis=-1)
    d = np.take_along_axis(np.broadcast_to(hit, order.shape), order, axis=-1).astype(np.float64)
    if weights is None:
        w = np.ones(t.shape)
    else:
        shape = np.broadcast_shapes(np.shape(weights), order.shape)
        w = np.take_along_axis(np.broadcast_to(weights, shape), np.broadcast_to(order, shape), axis=-1)
        t, d = np.broadcast_to(t, shape), np.broadcast_to(d, shape)
    risk = np.cumsum(w[..., ::-1], axis=-1)[..., ::-1]
    fall = np.where(risk > 0.0, 1.0 - d * w / np.where(risk > 0.0, risk, 1.0), 1.0)
    missing = np.concatenate([np.ones((*t.shape[:-1], 1)), np.cumprod(fall, axis=-1)], axis=-1)
    clipped = np.minimum(t, tau)
    edges = np.concatenate([np.zeros((*t.shape[:-1], 1)), clipped, np.full((*t.shape[:-1], 1), tau)], axis=-1)
    found: FloatArray = (missing * np.diff(edges, axis=-1)).sum(axis=-1)
    return found


def pseudo_values(times: FloatArray, hit: BoolArray, tau: float) -> FloatArray:
    """Jackknife pseudo-values ``[n]`` of the restricted mean: one number per run, for comparisons inside seed blocks.

    ``n m - (n - 1) m_(-i)``, which is min(T_i, tau) where no run was lost before tau (Andersen and Perme, 2010).
    """
    n = times.size
    if n == 1:
        return np.minimum(times, tau).astype(np.float64)
    if (hit | (times >= tau)).all():
        return np.minimum(times, tau).astype(np.float64)
    left_out = np.array([area(np.delete(times, i), np.delete(hit, i), tau) for i in range(n)])
    values: FloatArray = n * float(area(times, hit, tau)) - (n - 1) * left_out
    return values


def known_until(times: FloatArray, hit: BoolArray) -> float:
    """How far S is known: to the last miss if that is followed longest, for ever if S falls to 0."""
    if hit.all() or (hit.any() and times[~hit].max() < times[hit].max()):
        return math.inf
    return float(times[~hit].max())


def common_horizon(rows: Sequence[tuple[FloatArray, BoolArray]]) -> float | None:
    """The largest tau up to which the curve of every row ``(times, hit)`` is known; None if no row has a time."""
    rows = [(times, hit) for times, hit in rows if times.size]
    known = [known_until(times, hit) for times, hit in rows]
    finite = [value for value in known if math.isfinite(value)]
    if finite:
        return min(finite)
    hits = [float(times[hit].max()) for times, hit in rows if hit.any()]
    return max(hits, default=None)


class LogRank(NamedTuple):
    """A log-rank test: ``statistic`` is positive where the first sample reaches the target sooner; ``p`` two-sided."""

    statistic: float
    p: float


def log_rank(ours: tuple[Sequence[float], Sequence[float]], theirs: tuple[Sequence[float], Sequence[float]]) -> LogRank:
    """Whether two Kaplan-Meier curves differ, by SciPy's test; each side is ``(reached, missed)``."""
    sides = [checked(*ours), checked(*theirs)]
    if not any(hit.any() for _, hit in sides):
        return LogRank(0.0, 1.0)
    from scipy import stats

    end = max(float(times[np.isfinite(times)].max(initial=0.0)) for times, _ in sides) + 1.0
    x, y = (stats.CensoredData.right_censored(np.minimum(times, end), ~hit) for times, hit in sides)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = stats.logrank(x, y)
    if not math.isfinite(found.statistic):
        return LogRank(0.0, 1.0)
    return LogRank(float(found.statistic), float(found.pvalue))


def rate(events: int, n: int, confidence: float = 0.95) -> Estimate:
    """A share, e.g. of runs that diverged, with Clopper and Pearson's exact interval.

    Raises:
        ValueError: n is not positive or events do not lie in [0, n].
    """
    if n < 1 or not 0 <= events <= n:
        raise ValueError(f"{events} of {n}: must be 0 to n of at least 1")
    from scipy import stats

    found = stats.binomtest(events, n).proportion_ci(confidence, method="exact")
    return Estimate(events / n, float(found.low), float(found.high), n)


def checked(reached: Sequence[float], missed: Sequence[float]) -> tuple[FloatArray, BoolArray]:
    """Times ``[n]`` and whether each is a hit ``[n]``."""
    hits = np.asarray(list(reached), dtype=np.float64)
    misses = np.asarray(list(missed), dtype=np.float64)
    times = np.concatenate([hits, misses])
    if times.size == 0:
        raise ValueError("no run: need at least one")
    if np.isnan(times).any() or (times < 0.0).any() or np.isinf(hits).any():
        raise ValueError("times must be numbers that are not negative, and hits finite")
    return times, np.arange(times.size) < hits.size
