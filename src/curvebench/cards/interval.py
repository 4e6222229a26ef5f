"""Ranges of hyperparameters in interval notation: ``(0, inf)``, ``[0, 1)``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

_NUMBER = r"[+-]?(?:inf|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_FORM = re.compile(rf"([(\[])\s*({_NUMBER})\s*,\s*({_NUMBER})\s*([)\]])")


@dataclass(frozen=True)
class Interval:
    """A non-empty set of real numbers between two ends; NaN and the infinities lie in none.

    Args:
        low: lower end, may be ``-inf``.
        high: upper end, may be ``inf``.
        closed_low: whether ``low`` itself belongs to it.
        closed_high: whether ``high`` itself belongs to it.
    """

    low: float
    high: float
    closed_low: bool
    closed_high: bool

    @classmethod
    @lru_cache(maxsize=256)  # cards repeat a handful of ranges
    def parse(cls, text: str) -> Interval:
        """Read interval notation.

        Raises:
            ValueError: the sentence after "must": what ``text`` should be instead.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ValueError("must be an interval such as (0, inf) or [0, 1)")
        low, high = float(found[2]), float(found[3])
        interval = cls(low, high, found[1] == "[", found[4] == "]")
        if low > high or (low == high and not (interval.closed_low and interval.closed_high)):
            raise ValueError("must not be empty: the lower end lies above the upper one")
        if (math.isinf(low) and interval.closed_low) or (math.isinf(high) and interval.closed_high):
            raise ValueError("must be open at an infinite end: (0, inf), not (0, inf]")
        return interval

    def __contains__(self, value: float) -> bool:
        """Whether ``value`` is a finite number inside."""
        if not math.isfinite(value):
            return False
        above = value >= self.low if self.closed_low else value > self.low
        below = value <= self.high if self.closed_high else value < self.high
        return above and below
