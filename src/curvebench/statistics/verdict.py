"""Whether measured numbers reproduce a reported one: the rule, in its order. No verdict is given by hand.

Letters: r the reported number, m the mean of the measured ones, s their standard deviation, n their count, M the
margin, h = t(0.95, n - 1) s / sqrt(n) half the 90 % interval, so that both one-sided tests are at 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from curvebench.statistics.estimate import half_width

Word: TypeAlias = Literal[
    "reproduced",
    "partly",
    "not reproduced",
    "cannot tell",
    "consistent (proxy)",
    "inconsistent (proxy)",
    "not comparable",
    "not run",
]
"""What a verdict may be."""

CONFIDENCE: Final = 0.90
"""Of the interval of the difference: two one-sided tests at 5 %."""

SPREADS: Final = 2.0
"""Times the paper's spread is the least margin."""

MOST: Final = 1_000_000
"""Runs beyond which the rule says that no number of them will do."""


@dataclass(frozen=True)
class Verdict:
    """A verdict with what it rests on.

    Args:
        word: one of :data:`Word`.
        why: what stands in brackets behind it: the need, the n, why not comparable; empty for the others.
        margin: M, None where there is none.
        difference: m - r, None without records.
        low: lower end of its 90 % interval, None for n < 2.
        high: upper end.
        n: measured runs.
        needed: runs that would decide, where the word is ``cannot tell``; None: no number would.
    """

    word: Word
    why: str = ""
    margin: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    needed: int | None = None

    def __str__(self) -> str:
        return f"{self.word} ({self.why})" if self.why else self.word


def verdict(
    reported: float,
    measured: Sequence[float],
    *,
    spread: float | None = None,
    margin: float | None = None,
    baseline: float | None = None,
    differences: Sequence[float] = (),
    reduced: bool = False,
    needs: str = "needs records",
) -> Verdict:
    """Compare measured numbers with a reported one.

    In this order: ``not run`` without numbers; ``not comparable`` with neither spread nor margin; ``reproduced`` if the
    90 % interval of m - r lies inside [-M, M], M = max(2 spread, margin); if it lies wholly outside, ``partly`` when
    the measured difference to the baseline has the reported sign with its 90 % interval off zero, else
    ``not reproduced``; otherwise ``cannot tell``, with the n that would.

    At a reduced scale the number itself is not expected to be the same. Where there is a baseline, its sign alone is
    held against the measured one: ``inconsistent (proxy)`` if the 90 % interval of the difference to the baseline
    lies wholly on the other side of zero. Without one the margin decides: inconsistent if the interval of m - r lies
    wholly outside. All else is ``consistent (proxy)``: nothing measured speaks against it.

    Args:
        reported: r.
        measured: one number per seed block, in the paper's unit.
        spread: the paper's, a standard deviation.
        margin: the cell's own.
        baseline: the reported number of the cell to compare with.
        differences: measured minus the baseline's measured, one per shared seed block.
        reduced: the records are of a smaller scale or another set-up.
        needs: said in brackets where nothing was measured.

    Raises:
        ValueError: a number is not finite, a spread negative or a margin not positive.
    """
    _check(reported, measured, spread, margin, baseline, differences)
    if not measured:
        return Verdict("not run", needs)
    allowed = widest(spread, margin)
    signed = None if baseline is None or baseline == reported else reported - baseline
    if allowed is None and not (reduced and signed is not None):
        return _verdict("not comparable", "no spread, no margin", reported, measured, None)
    if reduced:
        return _proxy(reported, measured, allowed, signed, differences)
    assert allowed is not None
    found = _verdict("cannot tell", "", reported, measured, allowed)
    place = where(found.low, found.high, allowed)
    if place == "inside":
        return _verdict("reproduced", "", reported, measured, allowed)
    if place == "outside":
        agreed = signed is not None and side(differences) == math.copysign(1.0, signed)
        return _verdict("partly" if agreed else "not reproduced", "", reported, measured, allowed)
    assert found.difference is not None
    n = needed(found.difference, deviation(measured), allowed)
    why = "no n would tell: the mean lies on the margin" if n is None else f"n too small; needs n = {n}"
    return _verdict("cannot tell", why, reported, measured, allowed, n)


def decide(
    values: Sequence[float],
    low: float = -math.inf,
    high: float = math.inf,
    *,
    strict: bool = False,
    reduced: bool = False,
    needs: str = "needs records",
) -> Verdict:
    """Hold measured numbers against the interval ``[low, high]`` that a claim allows.

    ``reproduced`` if the 90 % interval of the mean lies inside, ``not reproduced`` if wholly outside, otherwise
    ``cannot tell`` with the n that would. At a reduced scale wholly outside is ``inconsistent (proxy)``, all else
    ``consistent (proxy)``. The verdict's ``difference`` is the mean itself, ``low`` and ``high`` its interval.

    Args:
        values: one per seed block; for a comparison of two methods their paired differences.
        low: may be minus infinity.
        high: may be infinity.
        strict: the ends do not belong to the claim, as in "less than".
        reduced: the records are of a smaller scale or another set-up.
        needs: said in brackets where nothing was measured.

    Raises:
        ValueError: a value is not finite, or low > high.
    """
    _check(0.0, values, None, None, None, ())
    if low > high:
        raise ValueError(f"low = {low}: must not be greater than high = {high}")
    if not values:
        return Verdict("not run", needs)
    mean, ends = float(np.mean(np.asarray(values, dtype=np.float64))), interval90(values)
    inside = outside = False
    if ends is not None:
        inside = (low < ends[0] and ends[1] < high) if strict else (low <= ends[0] and ends[1] <= high)
        outside = ends[0] > high or ends[1] < low
    bottom, top = ends if ends is not None else (None, None)
    if reduced:
        word: Word = "inconsistent (proxy)" if outside else "consistent (proxy)"
    else:
        word = "reproduced" if inside else "not reproduced" if outside else "cannot tell"
    if word != "cannot tell":
        return Verdict(word, "", None, mean, bottom, top, len(values))
    middle = low <= mean <= high
    gap = min(abs(mean - low), abs(mean - high))
    n = _least(deviation(values), gap, middle and not strict)
    why = "no n would tell: the mean lies on the bound" if n is None else f"n too small; needs n = {n}"
    return Verdict(word, why, None, mean, bottom, top, len(values), n)


def widest(spread: float | None, margin: float | None) -> float | None:
    """M = max(2 spread, margin), None with neither; a spread of 0 alone is a margin of 0."""
    given = [*([SPREADS * spread] if spread is not None else []), *([margin] if margin is not None else [])]
    return max(given, default=None)


def needed(difference: float, spread: float | None, margin: float) -> int | None:
    """The least n >= 2 whose interval, at this mean and deviation, lies inside the margin or wholly outside it.

    Solves ``t(0.95, n-1) s / sqrt(n) <= |M - |m - r||``, strictly where the mean lies outside.

    Args:
        difference: m - r.
        spread: s; None, of a single run, says nothing: two runs are the least that have an interval.
        margin: M.

    Returns:
        None if the mean lies on the margin, or if more than :data:`MOST` runs were needed.
    """
    return _least(spread, abs(margin - abs(difference)), abs(difference) < margin)


def _least(spread: float | None, gap: float, closed: bool) -> int | None:
    """The least n whose half width is at most ``gap``, or less than it where the bound does not count as inside."""
    if spread is None:
        return 2
    if not _decides(MOST, spread, gap, closed):
        return None
    low, high = 2, MOST
    while low < high:
        middle = (low + high) // 2
        if _decides(middle, spread, gap, closed):
            high = middle
        else:
            low = middle + 1
    return low


def interval90(values: Sequence[float]) -> tuple[float, float] | None:
    """The 90 % Student t interval of the mean, None for fewer than two values."""
    if len(values) < 2:
        return None
    x = np.asarray(values, dtype=np.float64)
    if np.ptp(x) == 0.0:
        return float(x[0]), float(x[0])
    half = half_width(x, CONFIDENCE)
    return float(x.mean()) - half, float(x.mean()) + half


def where(low: float | None, high: float | None, margin: float) -> Literal["inside", "outside", "across"]:
    """Where an interval lies to [-margin, margin]; without one, nothing can be said: across."""
    if low is None or high is None:
        return "across"
    if -margin <= low and high <= margin:
        return "inside"
    return "outside" if low > margin or high < -margin else "across"


def side(differences: Sequence[float]) -> float:
    """1 or -1 if the 90 % interval of the mean of paired differences lies above or below zero, else 0."""
    found = interval90(differences)
    if found is None:
        return 0.0
    low, high = found
    return 1.0 if low > 0.0 else -1.0 if high < 0.0 else 0.0


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation with n - 1, None for fewer than two values."""
    return float(np.std(np.asarray(values, dtype=np.float64), ddof=1)) if len(values) > 1 else None


def _decides(n: int, spread: float, gap: float, closed: bool) -> bool:
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without that module's second of import

    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2.0)) * spread / math.sqrt(n)
    return half <= gap if closed else half < gap


def _proxy(
    reported: float,
    measured: Sequence[float],
    allowed: float | None,
    signed: float | None,
    differences: Sequence[float],
) -> Verdict:
    if signed is not None:
        against = side(differences) == -math.copysign(1.0, signed)
    else:
        assert allowed is not None
        found = _verdict("cannot tell", "", reported, measured, allowed)
        against = where(found.low, found.high, allowed) == "outside"
    return _verdict("inconsistent (proxy)" if against else "consistent (proxy)", "", reported, measured, allowed)


def _verdict(
    word: Word, why: str, reported: float, measured: Sequence[float], margin: float | None, n: int | None = None
) -> Verdict:
    ends = interval90([value - reported for value in measured])
    mean = float(np.mean(np.asarray(measured, dtype=np.float64))) - reported
    low, high = ends if ends is not None else (None, None)
    return Verdict(word, why, margin, mean, low, high, len(measured), n)


def _check(
    reported: float,
    measured: Sequence[float],
    spread: float | None,
    margin: float | None,
    baseline: float | None,
    differences: Sequence[float],
) -> None:
    for name, values in (
        ("reported", [reported]),
        ("measured", measured),
        ("baseline", [] if baseline is None else [baseline]),
        ("differences", differences),
    ):
        for value in values:
            if not math.isfinite(value):
                raise ValueError(f"{name} = {value}: must be finite: count what diverged apart")
    if spread is not None and not (math.isfinite(spread) and spread >= 0.0):
        raise ValueError(f"spread = {spread}: must be finite and not negative")
    if margin is not None and not (math.isfinite(margin) and margin > 0.0):
        raise ValueError(f"margin = {margin}: must be finite and positive")
