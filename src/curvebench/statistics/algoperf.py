"""AlgoPerf's own score, as its released code computes it (versions 0.5 and 0.6).

Letters: times ``[m, W, S, K]`` of m submissions on W workloads in S studies of K trials.

t(s, w) is the median over studies of the best trial's time, a miss infinite; what takes more than four times the
fastest is a miss; a base workload whose held-out variant is missed is a miss, and the other way round;
r = t / best; the score is the area under the share of base workloads with r <= tau, tau in [1, 4], on 100 points.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from curvebench.statistics.profiles import GRID, Rule, area, choose
from curvebench.types import BoolArray, FloatArray

FACTOR = 4.0


def time_to_target(times: FloatArray, hit: BoolArray, evaluations: FloatArray, rule: Rule = "released") -> FloatArray:
    """t(s, w) ``[m, W]``: the median over studies; NaN where a submission has no study of a workload.

    Args:
        times: ``[m, W, S, K]`` where hit, anything elsewhere; NaN where there is no such trial.
        hit: whether the target was reached.
        evaluations: at which evaluation.
        rule: ``released``: the trial with the fewest evaluations; ``written``: the one with the least time.
    """
    own, reached = choose(times, hit, evaluations if rule == "released" else None)
    found = np.where(reached, own, np.where(np.isnan(own), math.nan, math.inf))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a submission without any study of a workload
        medians: FloatArray = np.nanmedian(found, axis=-1)
    return medians


def scores(
    times: FloatArray, workloads: Sequence[str], base: Sequence[str], held_out: Mapping[str, str] | None = None
) -> FloatArray:
    """AlgoPerf's scores ``[m]`` from t(s, w) ``[m, W]``.

    Args:
        times: one column per name of ``workloads``; infinite or NaN where missed.
        workloads: names.
        base: those that count; one that is not among ``workloads`` is missed by all.
        held_out: variant -> its base workload.

    Raises:
        ValueError: as many columns as workloads are needed, and a base workload.
    """
    if times.ndim != 2 or times.shape[1] != len(workloads) or not base:
        raise ValueError(f"times of shape {list(times.shape)} for {len(workloads)} workloads: need one column each")
    column = {name: np.where(np.isnan(times[:, k]), math.inf, times[:, k]) for k, name in enumerate(workloads)}
    missing = np.full(times.shape[0], math.inf)
    kept = {name: column.get(name, missing) for name in [*base, *(held_out or {})]}
    for variant, of in (held_out or {}).items():
        kept[variant] = np.where(np.isfinite(kept[of]), kept[variant], math.inf)
    kept = {name: np.where(t > FACTOR * t.min(), math.inf, t) for name, t in kept.items()}
    for variant, of in (held_out or {}).items():
        kept[of] = np.where(np.isfinite(kept[variant]), kept[of], math.inf)
    matrix = np.stack([kept[name] for name in base], axis=1)
    best = matrix.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(matrix), matrix / best, math.inf)
    return area((ratio[:, :, None] <= GRID).mean(axis=1))
