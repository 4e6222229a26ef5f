"""A statement that the suite makes about itself: a sentence, a measurement, and the interval it must fall into."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from curvebench.errors import CurvebenchError, MissingPackageError


class Measured(NamedTuple):
    """A number and what else was seen."""

    value: float
    seen: str = ""


@dataclass(frozen=True)
class Statement:
    """``low <= measure() <= high``.

    Args:
        name: its name in tables, with hyphens.
        sentence: what is claimed, readable alone.
        measure: computes the number; raises :class:`MissingPackageError` where a package is missing.
        low: least value that holds.
        high: largest value that holds.
    """

    name: str
    sentence: str
    measure: Callable[[], Measured]
    low: float = -math.inf
    high: float = math.inf

    @property
    def bound(self) -> str:
        """The interval in words."""
        if self.low == self.high:
            return f"= {self.low:g}"
        if math.isinf(self.low):
            return f"<= {self.high:g}"
        if math.isinf(self.high):
            return f">= {self.low:g}"
        return f"in [{self.low:g}, {self.high:g}]"


class Finding(NamedTuple):
    """A statement's outcome: ``pass``, ``fail`` or ``not measured`` (a package is missing: the reason says which)."""

    name: str
    sentence: str
    value: float | None
    bound: str
    outcome: str
    seen: str
    seconds: float


def check(statements: Iterable[Statement]) -> Iterator[Finding]:
    """Measure each statement; what goes wrong while measuring fails it, a missing package leaves it open."""
    for statement in statements:
        began = time.perf_counter()
        value: float | None = None
        try:
            value, seen = statement.measure()
            outcome = "pass" if statement.low <= value <= statement.high else "fail"  # NaN is in no interval
            value = value if math.isfinite(value) else None
        except MissingPackageError as error:
            outcome, seen = "not measured", str(error)
        except CurvebenchError as error:
            outcome, seen = "fail", str(error)
        except Exception as error:  # what a method's code raises is what was found
            outcome, seen = "fail", f"{type(error).__name__}: {error}"
        yield Finding(statement.name, statement.sentence, value, statement.bound, outcome, seen,
                      round(time.perf_counter() - began, 3))  # fmt: skip
