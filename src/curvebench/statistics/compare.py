"""Who may be called best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from curvebench.statistics.estimate import Estimate


def within_noise(estimates: Sequence[Estimate | None], direction: Literal["min", "max"]) -> list[bool]:
    """Mark the estimates that cannot be told from the best one: those whose interval overlaps the best's.

    The best has the best mean among those that have an interval. Without an interval (None, n < 2) an estimate is
    neither the best nor near it, for nothing is known about its noise.

    Args:
        estimates: one per candidate.
        direction: ``min`` if less is better, ``max`` if more is.
    """
    known = [e for e in estimates if e is not None and e.interval is not None]
    if not known:
        return [False] * len(estimates)
    best = (min if direction == "min" else max)(known, key=lambda e: e.mean)
    low, high = best.interval or (best.mean, best.mean)
    return [
        e is not None and e.low is not None and e.high is not None and e.low <= high and e.high >= low
        for e in estimates
    ]
