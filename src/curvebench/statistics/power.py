"""What a study can see: the smallest difference that it detects with its number of seeds.

Letters: s the standard deviation of paired differences between seed blocks, n blocks, alpha the level of a two-sided
test, 1 - beta its power, delta the difference.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

LOOK: Final = 3
CLAIM: Final = 5
RANK: Final = 10
"""Seeds to look, to claim a difference, to rank."""

ALPHA = 0.05
POWER = 0.8


def detectable(spread: float, n: int, power: float = POWER, alpha: float = ALPHA, comparisons: int = 1) -> float:
    """The smallest delta that a paired t test of n blocks finds with probability ``power``.

    Solves ``P(|T| > t(n-1, 1-alpha/2)) = power`` for T noncentral t with n - 1 degrees of freedom and noncentrality
    ``delta sqrt(n) / s``.

    Args:
        spread: s, in any unit; the result has the same. On log10 the factor is ``10**delta``.
        n: seed blocks; below 2 nothing is detectable and the result is infinite.
        power: 1 - beta in (0, 1).
        alpha: of the two-sided test.
        comparisons: how many are made at once: alpha is divided by it, which is the hardest that Holm asks for.

    Raises:
        ValueError: a negative spread, or power, alpha or comparisons outside their range.
    """
    if not spread >= 0.0:
        raise ValueError(f"spread = {spread}: must not be negative")
    if not 0.0 < alpha < power < 1.0:
        raise ValueError(f"alpha = {alpha}, power = {power}: must lie in (0, 1), alpha below power")
    if comparisons < 1:
        raise ValueError(f"comparisons = {comparisons}: must be at least 1")
    if n < 2:
        return math.inf
    if spread == 0.0:
        return 0.0
    return noncentrality(n, power, alpha / comparisons) * spread / math.sqrt(n)


@lru_cache(maxsize=1024)
def noncentrality(n: int, power: float, alpha: float) -> float:
    """``delta sqrt(n) / s`` at which a paired t test of n blocks rejects with probability ``power``."""
    from scipy.optimize import brentq
    from scipy.special import nctdtr, stdtrit

    limit = float(stdtrit(n - 1, 1.0 - alpha / 2.0))

    def miss(value: float) -> float:
        # The chance to reject in the wrong direction is far below rounding wherever the power is worth having.
        return float(nctdtr(n - 1, value, limit)) - (1.0 - power)

    high = 1.0
    while miss(high) > 0.0:
        high *= 2.0
    return float(brentq(miss, 0.0, high, xtol=1e-10))


def seeds_needed(spread: float, difference: float, power: float = POWER, alpha: float = ALPHA, most: int = 1000) -> int:
    """The least n for which ``difference`` is detectable; ``most`` + 1 if that many are not enough.

    Raises:
        ValueError: the difference is not positive.
    """
    if not difference > 0.0:
        raise ValueError(f"difference = {difference}: must be positive")
    low, high = 2, most + 1
    while low < high:
        middle = (low + high) // 2
        if detectable(spread, middle, power, alpha) <= difference:
            high = middle
        else:
            low = middle + 1
    return low


def word(n: int) -> str:
    """The strongest word that n seeds carry: ``look``, ``claim`` or ``rank``; ``nothing`` below three."""
    return "rank" if n >= RANK else "claim" if n >= CLAIM else "look" if n >= LOOK else "nothing"
