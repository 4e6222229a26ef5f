"""Honest digits: a mean is printed no finer than its interval."""

from __future__ import annotations

import math

from curvebench.statistics import Estimate

SCIENTIFIC_BELOW = 1e-3
SCIENTIFIC_FROM = 1e6


def text(estimate: Estimate | None) -> str:
    """Print an estimate: ``12.3 ± 0.4``, ``1.2e-05 ×/÷ 1.8``, ``12.3 [11.9, 13.1]``, ``≥ 320 ± 50``, ``> 500``, ``-``.

    A symmetric interval is ``±`` its half-width, one that is symmetric in the logarithm ``×/÷`` its factor, any other
    its two ends. The half-width has two digits if it begins with 1 or 2, else one (the Particle Data Group's habit),
    and the mean as many decimals, but at least two digits of its own.
    """
    if estimate is None or estimate.n == 0:
        return "-"
    if estimate.never:
        return f"> {plain(estimate.mean)}"
    bound = "≥ " if estimate.censored else ""
    return bound + (factor(estimate) if estimate.geometric else symmetric(estimate))


def symmetric(estimate: Estimate) -> str:
    """``mean ± h``, or ``mean [low, high]`` where the two halves differ by more than a tenth."""
    if estimate.low is None or estimate.high is None:
        return plain(estimate.mean)
    below, above = estimate.mean - estimate.low, estimate.high - estimate.mean
    half = max(below, above)
    if half <= 1e-12 * abs(estimate.mean):
        return f"{plain(estimate.mean, 4)} ± 0"
    skewed = abs(above - below) > 0.1 * half
    largest = max(abs(estimate.mean), half)
    exponent = scale(largest) if not SCIENTIFIC_BELOW <= largest < SCIENTIFIC_FROM else 0
    places = decimals(half / 10.0**exponent, estimate.mean / 10.0**exponent)
    mean, low, high = (fixed(v / 10.0**exponent, places) for v in (estimate.mean, estimate.low, estimate.high))
    if skewed:
        body = f"{mean} [{low}, {high}]"
        return f"({body})e{exponent:+03d}" if exponent else body
    body = f"{mean} ± {trimmed(half / 10.0**exponent, places)}"
    return f"({body})e{exponent:+03d}" if exponent else body


def factor(estimate: Estimate) -> str:
    """``mean ×/÷ f``: the truth lies, at the stated confidence, between mean / f and mean * f."""
    if estimate.low is None or estimate.high is None or estimate.low <= 0.0:
        return plain(estimate.mean, 2)
    spread = math.sqrt(estimate.high) / math.sqrt(estimate.low)
    # No spread at all (every seed at the resolution, say) earns no more digits than a wide one.
    digits = 2 if spread >= 1.1 or spread - 1.0 < 1e-9 else min(6, 1 - scale(max(spread - 1.0, 1e-9)))
    return f"{plain(estimate.mean, digits)} ×/÷ {above_one(spread)}"


def above_one(spread: float) -> str:
    """A factor of at least 1: ``1.03``, ``1.8``, ``40``, ``3e+05``."""
    if spread < 1.2:
        return f"{spread:.3g}"
    return f"{spread:.2g}" if spread < 100.0 else f"{spread:.0e}"


def plain(value: float | None, digits: int = 3) -> str:
    """A number without interval to ``digits`` significant digits, trailing zeros kept; ``-`` if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0.0:
        return "0"
    if not SCIENTIFIC_BELOW <= abs(value) < SCIENTIFIC_FROM:
        return f"{value:.{digits - 1}e}"
    if float(value).is_integer() and abs(value) < SCIENTIFIC_FROM:
        return f"{value:.0f}"
    return fixed(value, max(0, digits - 1 - scale(value)))


def short(value: float | None) -> str:
    """A setting as somebody would write it: ``0.001``, ``1e-05``, ``500``; ``-`` if there is none."""
    return "-" if value is None else f"{value:g}"


def scale(value: float) -> int:
    """The power of ten of the leading digit; 0 for 0."""
    return math.floor(math.log10(abs(value))) if value else 0


def decimals(half: float, mean: float) -> int:
    """Decimals, negative for tens and hundreds: ``half`` keeps its meaning and ``mean`` at least two digits."""
    leading = half / 10.0 ** scale(half)
    of_half = (1 if leading < 2.95 else 0) - scale(half)
    of_mean = 1 - scale(mean) if mean else of_half
    return max(of_half, min(of_mean, of_half + 2))


def fixed(value: float, places: int) -> str:
    """Fixed point, rounded to ``places`` decimals (tens if -1, hundreds if -2, ...), never ``-0``."""
    out = f"{round(value, places):.{max(0, places)}f}"
    return out.lstrip("-") if float(out) == 0.0 else out


def trimmed(half: float, places: int) -> str:
    """A half-width to one or two digits, and to no more decimals than the mean."""
    leading = half / 10.0 ** scale(half)
    own = (1 if leading < 2.95 else 0) - scale(half)
    return fixed(half, min(places, own))
