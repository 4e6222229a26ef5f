"""One hyperparameter of a method: its default, what it may be, and how a given value becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from curvebench.cards.base import STRICT, Text, is_number
from curvebench.cards.interval import Interval
from curvebench.spec import Scalar

_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Hyperparameter:
    """A constant of a method that a user may set.

    Args:
        default: its type (float, int, bool or str) is the hyperparameter's type.
        range: numbers only, in interval notation.
        choices: strings only, all that are allowed.
        about: what it is, and its unit.
    """

    __pydantic_config__ = STRICT

    default: Annotated[float | int | bool | str, Field(description="the value if none is given; fixes the type")]
    range: Annotated[str | None, Field(description="numbers only: an interval such as (0, inf) or [0, 1)")] = None
    choices: Annotated[tuple[Text, ...] | None, Field(min_length=1, description="strings only: all allowed")] = None
    about: Annotated[str, Field(description="what it is, and its unit")] = ""

    def convert(self, value: Scalar) -> Scalar:
        """``value`` in the type of the default. Whole floats become ints; strings are read as numbers or booleans.

        Raises:
            ValueError: the sentence that says what it must be.
        """
        if isinstance(self.default, bool):
            return _boolean(value)
        if isinstance(self.default, str):
            if self.choices is None or value not in self.choices:
                raise ValueError("must be " + " or ".join(repr(choice) for choice in self.choices or ()))
            return value
        number = _whole(value) if isinstance(self.default, int) else _real(value)
        if self.range is not None and number not in Interval.parse(self.range):
            raise ValueError(f"must lie in {self.range}")
        return number


def _boolean(value: Scalar) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise ValueError("must be true or false")


def _real(value: Scalar) -> float:
    if is_number(value) or isinstance(value, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise ValueError("must be a number")


def _whole(value: Scalar) -> int:
    try:
        number = _real(value)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if not number.is_integer():
        raise ValueError("must be a whole number")
    return int(value) if isinstance(value, int) else int(number)
