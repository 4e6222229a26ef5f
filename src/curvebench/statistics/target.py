"""Time to a target when some runs never got there.

A miss is right-censored: the run would have needed more than it consumed. Letters: T_i the time of seed i to the
target (seconds, steps or oracle calls), C_i what a miss had consumed on that axis when it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from curvebench.statistics.estimate import Estimate, interval


def to_target(reached: Sequence[float], missed: Sequence[float] = (), confidence: float = 0.95) -> Estimate:
    """Estimate the mean time to the target from hits and misses. Never infinity, never "last + 1".

    - no miss: the mean of T with its interval (:func:`interval`);
    - some misses: the restricted mean, of min(T_i, C_i), with its interval. It cannot exceed the mean of T whatever
      made the runs stop, so it is a lower bound and is to be printed as one; where all misses were followed to the
      same budget tau it is the area under the Kaplan-Meier curve over [0, tau];
    - only misses: the mean of C, which the mean of T exceeds for certain; no interval.

    Args:
        reached: T_i of the seeds that reached the target.
        missed: C_i of those that did not.
        confidence: of the two-sided interval.

    Raises:
        ValueError: a time is negative or not finite.
    """
    if min([*reached, *missed], default=0.0) < 0.0:
        raise ValueError("times must not be negative")
    estimate = replace(interval([*reached, *missed], confidence), censored=len(missed))
    return replace(estimate, low=None, high=None) if estimate.never else estimate
