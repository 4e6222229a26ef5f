"""Performance profiles: on which share of the tasks is a method within a factor tau of the best?

Letters: m methods, T tasks, S studies (seed blocks, or what AlgoPerf calls a study), K trials of a study, D draws,
G points of the grid of tau. Times ``[m, T, S, K]``: to the target where ``hit``, else what was consumed; NaN where
there was no such trial.

Two profiles of the same runs:
- :func:`plain`: Dolan and Moré (2002), ``rho_s(tau) = |{t : r_st <= tau}| / T`` of ratios r to the best; a miss is
  infinite. This is what AlgoPerf scores.
- :func:`censored`: ``rho_s(tau) = mean_t P(T_st <= tau b_t)`` with P from the Kaplan-Meier curve over studies and b_t
  the least Kaplan-Meier median of any method. Half of the studies reaching counts half, a miss is followed no
  further than it ran, and a bootstrap over tasks, trials (tuning repetition) and studies gives bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from curvebench.statistics.estimate import SEED
from curvebench.statistics.ranks import ranks_of
from curvebench.types import BoolArray, FloatArray, IntArray

GRID = np.linspace(1.0, 4.0, 100)
"""AlgoPerf's grid of tau; a score is the trapezoid over it divided by its length."""

DRAWS = 1000


class Band(NamedTuple):
    """A profile ``[m, G]`` with the ends of its pointwise intervals."""

    rho: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Scores:
    """Scores of m methods with their doubt.

    Args:
        score: area under each profile, in [0, 1] ``[m]``.
        low: lower end of the interval ``[m]``.
        high: upper end ``[m]``.
        rank: place by score, 1 the best ``[m]``.
        rank_low: best rank that the interval holds ``[m]``.
        rank_high: worst rank that it holds ``[m]``.
        first: probability of the highest score ``[m]``.
        band: the profile.
    """

    score: FloatArray
    low: FloatArray
    high: FloatArray
    rank: IntArray
    rank_low: IntArray
    rank_high: IntArray
    first: FloatArray
    band: Band


def plain(times: FloatArray, grid: FloatArray = GRID) -> FloatArray:
    """Dolan and Moré's profile ``[m, G]`` of one time per method and task ``[m, T]``; a miss is infinite or NaN.

    A task that nobody solves counts against everybody.
    """
    best = np.min(np.where(np.isnan(times), math.inf, times), axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(times), times / best, math.inf)
    share: FloatArray = (ratio[:, :, None] <= grid).mean(axis=1)
    return share


def area(rho: FloatArray, grid: FloatArray = GRID) -> FloatArray:
    """Area under profiles ``[..., G]``, divided by the length of the grid: 1 is the best on every task."""
    found: FloatArray = np.trapezoid(rho, grid, axis=-1) / (grid[-1] - grid[0])
    return found


def choose(times: FloatArray, hit: BoolArray, evaluations: FloatArray | None = None) -> tuple[FloatArray, BoolArray]:
    """One time per study ``[..., S]`` out of its trials ``[..., S, K]``, and whether it is a hit.

    Among the trials that reached, the one with the fewest evaluations where those are given (AlgoPerf's released
    code), else the one with the least time (its written rule); the first of equals. A study without a hit is a miss
    that was followed as long as its longest trial, for one that stopped early never reaches.
    """
    key = np.where(hit, times if evaluations is None else evaluations, math.inf)
    index = np.argmin(key, axis=-1)[..., None]
    reached = np.take_along_axis(hit, index, axis=-1)[..., 0]
    best = np.take_along_axis(times, index, axis=-1)[..., 0]
    absent = np.isnan(times).all(axis=-1)
    longest = np.where(absent, math.nan, np.max(np.where(np.isnan(times), -math.inf, times), axis=-1))
    return np.where(reached, best, longest), reached


def censored(
    times: FloatArray,
    hit: BoolArray,
    evaluations: FloatArray | None = None,
    grid: FloatArray = GRID,
    draws: int = DRAWS,
    *,
    paired: bool = False,
    resample_tasks: bool = True,
    confidence: float = 0.95,
    seed: int = SEED,
) -> Scores:
    """Censored profiles with bands, scores with intervals, rank intervals.

    Args:
        times: ``[m, T, S, K]``.
        hit: ``[m, T, S, K]``.
        evaluations: at which evaluation each hit was ``[m, T, S, K]``; None: trials are chosen by time.
        grid: of tau.
        draws: D.
        paired: studies are seed blocks that all methods share, and are resampled together; trials are then one pool
            per task that all its studies share, so one draw of it holds for all of them.
        resample_tasks: the tasks are a sample of more.
        confidence: of every interval.
        seed: of the generator.

    Raises:
        ValueError: arrays of other or different shapes.
    """
    if times.ndim != 4 or times.shape != hit.shape or (evaluations is not None and evaluations.shape != times.shape):
        raise ValueError("times, hits and evaluations must be [methods, tasks, studies, trials], all the same")
    own, reached = choose(times, hit, evaluations)
    whole = np.ones((1, own.shape[2]))
    rho = np.stack([_shares(own[:, t, None], reached[:, t, None], whole, grid)[:, 0] for t in range(own.shape[1])])
    profile = rho.mean(axis=0)
    drawn = _draws(times, hit, evaluations, grid, draws, paired, resample_tasks, seed)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    scores = area(drawn, grid)
    ends = np.quantile(scores, [tail, 1.0 - tail], axis=0)
    best, worst = ranks_of(-scores), ranks_of(-scores, worst=True)
    top = scores == scores.max(axis=1, keepdims=True)
    value = area(profile, grid)
    return Scores(
        value,
        np.minimum(ends[0], value),
        np.maximum(ends[1], value),
        ranks_of(-value),
        np.quantile(best, tail, axis=0, method="lower").astype(np.int64),
        np.quantile(worst, 1.0 - tail, axis=0, method="higher").astype(np.int64),
        (top / top.sum(axis=1, keepdims=True)).mean(axis=0),
        Band(profile, low, high),
    )


def _draws(
    times: FloatArray,
    hit: BoolArray,
    evaluations: FloatArray | None,
    grid: FloatArray,
    draws: int,
    paired: bool,
    resample_tasks: bool,
    seed: int,
) -> FloatArray:
    """Profiles of resampled studies ``[D, m, G]``."""
    methods, tasks, studies, _ = times.shape
    rng = np.random.default_rng(seed)
    chosen = rng.integers(tasks, size=(draws, tasks)) if resample_tasks else np.tile(np.arange(tasks), (draws, 1))
    total = np.zeros((methods, draws, grid.size))
    for task in range(tasks):
        counts = (chosen == task).sum(axis=1)
        while counts.any():  # a task that is drawn twice gets two resamples
            here = np.flatnonzero(counts)
            shape = (1 if paired else methods, here.size, studies)
            weights = rng.multinomial(studies, np.full(studies, 1.0 / studies), size=shape[:2]).astype(np.float64)
            own, reached = _tuned_again(times[:, task], hit[:, task], evaluations, task, here.size, paired, rng)
            shares = _shares(own, reached, weights, grid)
            if here.size == draws:
                total += shares
            else:
                total[:, here] += shares
            counts -= counts > 0
    total /= tasks
    return total.transpose(1, 0, 2)


def _tuned_again(
    times: FloatArray,
    hit: BoolArray,
    evaluations: FloatArray | None,
    task: int,
    draws: int,
    shared: bool,
    rng: np.random.Generator,
) -> tuple[FloatArray, BoolArray]:
    """The trials of every study drawn again with replacement, and the best of those: ``[m, D, S]`` each."""
    methods, studies, trials = times.shape
    count = None if evaluations is None else evaluations[:, task]
    if trials == 1:
        own, reached = choose(times, hit, count)
        return own[:, None], reached[:, None]
    present = np.isfinite(times)
    number = np.maximum(present.sum(axis=-1), 1)
    order = np.argsort(~present, axis=-1, kind="stable")  # the trials that there are, first
    uniform = rng.random((methods, draws, 1 if shared else studies, trials))
    picks = np.floor(uniform * number[:, None, :, None]).astype(np.int64)
    index = np.take_along_axis(np.broadcast_to(order[:, None], picks.shape), picks, axis=-1)
    slot = np.arange(trials) < number[..., None]  # a study with fewer trials is drawn with as few

    def wide(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], draws, *shape[1:])

    def take(array: FloatArray) -> FloatArray:
        return np.take_along_axis(np.broadcast_to(array[:, None], wide(array.shape)), index, axis=-1)

    taken = np.where(slot[:, None], take(times), math.nan)
    again = np.take_along_axis(np.broadcast_to(hit[:, None], wide(hit.shape)), index, axis=-1)
    return choose(taken, again & slot[:, None], None if count is None else take(count))


def _shares(own: FloatArray, reached: BoolArray, weights: FloatArray, grid: FloatArray) -> FloatArray:
    """``P(T <= tau b)`` on one task ``[m, D, G]`` from times ``[m, D or 1, S]`` and weights ``[m or 1, D, S]``."""
    times = np.where(np.isnan(own), math.inf, own)
    order = np.lexsort((~reached, times), axis=-1)  # [m, D or 1, S]: sorted once where all draws have the same times
    t = np.take_along_axis(times, order, axis=-1)
    d = np.take_along_axis(reached, order, axis=-1)
    there = np.take_along_axis(~np.isnan(own), order, axis=-1)
    shape = np.broadcast_shapes(own.shape, weights.shape)
    w = np.take_along_axis(np.broadcast_to(weights, shape), np.broadcast_to(order, shape), axis=-1) * there
    risk = np.cumsum(w[..., ::-1], axis=-1)[..., ::-1]
    fall = 1.0 - d * w / np.maximum(risk, 1e-300)
    missing = np.cumprod(fall, axis=-1)
    reaching = np.concatenate([np.zeros((*shape[:2], 1)), 1.0 - missing], axis=-1)
    start = np.arange(shape[1])[:, None] * reaching.shape[-1]  # of a draw's row among all of its method's numbers
    crossed = (missing <= 0.5 + 1e-12) & (w > 0.0)
    place = np.argmax(crossed, axis=-1)[..., None]
    at = np.take_along_axis(np.broadcast_to(t, shape), place, axis=-1)[..., 0]
    best = np.where(crossed.any(axis=-1), at, math.inf).min(axis=0)  # [D]
    levels, level = np.unique(best, return_inverse=True)
    with np.errstate(invalid="ignore"):
        limits = levels[:, None] * grid * (1.0 + 1e-12)  # [U, G]
    out = np.zeros((*shape[:2], grid.size))
    solved = np.isfinite(best)
    for method in range(shape[0]):
        if not d[method].any():
            continue
        if t.shape[1] == 1:  # few different best times: look each of them up once
            index = np.searchsorted(t[method, 0], limits, side="right")[level]
        else:
            index = (t[method][:, :, None] <= limits[level][:, None, :]).sum(axis=1)
        np.take(reaching[method].ravel(), index + start, out=out[method], mode="clip")
    out[:, ~solved] = 0.0
    return out


def ordered(scores: Scores) -> list[int]:
    """Indices of the methods, the highest score first."""
    return [int(k) for k in np.argsort(-scores.score, kind="stable")]


Rule = Literal["released", "written"]
