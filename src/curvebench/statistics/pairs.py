"""Ratios of two timings that were taken in interleaved pairs, so that the machine's drift cancels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Ratio(NamedTuple):
    """Median of the pairwise ratios ours / theirs with a 95 % interval, and both medians in seconds."""

    ratio: float
    low: float
    high: float
    ours: float
    theirs: float
    n: int

    @property
    def difference(self) -> float:
        """Difference of the medians in seconds."""
        return self.ours - self.theirs


def interleave(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Time two callables in ABBA order, ``pairs`` times each, in this process.

    Args:
        ours: does its whole work before it returns, device work included.
        theirs: likewise, the same amount of work.
        pairs: at least 1; 50 for a figure that is published.
        clock: reads seconds; ``time.process_time`` on a machine that others use.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for index in range(pairs):
        order = (0, 1) if index % 2 == 0 else (1, 0)
        for side in order:
            began = clock()
            (ours, theirs)[side]()
            seconds[side].append(clock() - began)
    return paired_ratio(*seconds)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Median ratio with the distribution-free interval of a median: the binomial order statistics of the ratios.

    Raises:
        ValueError: the sequences are empty or differ in length.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} timings: need pairs")
    from scipy.stats import binom

    ratios = np.sort(np.asarray(ours) / np.asarray(theirs))
    n = len(ratios)
    low = int(max(binom.ppf(0.025, n, 0.5) - 1, 0))
    return Ratio(
        float(np.median(ratios)),
        float(ratios[low]),
        float(ratios[n - 1 - low]),
        float(np.median(ours)),
        float(np.median(theirs)),
        n,
    )
