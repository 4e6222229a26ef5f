"""Resampling what a study drew by chance: its tasks, its tuning repetitions, its seed blocks, the outer first.

Letters: D draws, T tasks, R tuning repetitions of a task, S seed blocks of a repetition, m methods.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curvebench.statistics.estimate import SEED, Estimate
from curvebench.statistics.ranks import resample_weights
from curvebench.types import FloatArray

DRAWS = 2000


def resampled_means(
    values: Sequence[FloatArray], draws: int = DRAWS, *, tasks: bool = True, seed: int = SEED
) -> FloatArray:
    """Draws of the mean over tasks of the mean over tuning repetitions of the mean over seed blocks ``[D, m]``.

    Each draw resamples tasks with replacement; inside each chosen one its tuning repetitions; inside each of those its
    seed blocks. Methods share every resample, so comparisons stay paired.

    Args:
        values: per task ``[R, S, m]``, complete; R and S may differ between tasks.
        draws: D.
        tasks: False where the tasks are all that is asked about, not a sample of more.
        seed: of the generator.

    Raises:
        ValueError: no task, or arrays of other shapes, or a value that is not finite.
    """
    shapes = {array.shape[2:] for array in values}
    if not values or any(array.ndim != 3 or 0 in array.shape for array in values) or len(shapes) != 1:
        raise ValueError("values must be one or more arrays [repetitions, seed blocks, methods], none empty")
    if not all(np.isfinite(array).all() for array in values):
        raise ValueError("values must be finite: leave incomplete blocks out, or censor them")
    rng = np.random.default_rng(seed)
    count = len(values)
    chosen = rng.integers(count, size=(draws, count)) if tasks else np.tile(np.arange(count), (draws, 1))
    total = np.zeros((draws, values[0].shape[2]))
    for task, array in enumerate(values):
        times = (chosen == task).sum(axis=1)
        while times.any():  # a task that is drawn twice is resampled twice
            here = np.flatnonzero(times)
            total[here] += inner(array, here.size, rng)
            times -= times > 0
    means: FloatArray = total / count
    return means


def inner(array: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws of one task's mean ``[draws, m]``: repetitions resampled, seed blocks anew inside each that was drawn."""
    repetitions, blocks, methods = array.shape
    chosen = rng.integers(repetitions, size=(draws, repetitions))
    out = np.zeros((draws, methods))
    for slot in range(repetitions):
        weights = resample_weights(blocks, draws, rng) / blocks
        out += weights @ array[0] if repetitions == 1 else np.einsum("ds,dsm->dm", weights, array[chosen[:, slot]])
    means: FloatArray = out / repetitions
    return means


def percentile(draws: FloatArray, value: float, n: int, confidence: float = 0.95) -> Estimate:
    """A value with the percentile interval of its draws ``[D]``."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high), n)
