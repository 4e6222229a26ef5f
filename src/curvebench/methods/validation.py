"""Refuse a bad hyperparameter at construction, naming it, its value and the allowed range."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from numbers import Real

from curvebench.cards.interval import Interval
from curvebench.errors import HyperparameterError


def check(method: str, name: str, value: object, allowed: str | Sequence[str]) -> None:
    """Raise unless ``value`` lies in the interval ``allowed`` such as ``(0, inf)``, or is one of the words.

    Raises:
        HyperparameterError: it does not.
    """
    if isinstance(allowed, str):
        if _traced(value):
            return  # a scheduled rate: the number behind it was checked when the method was made
        # NumPy's scalars are Real; a tensor that somebody changes later would not be checked again.
        if not isinstance(value, Real):
            raise HyperparameterError(f"{method}: {name} = {value!r}: must be a number in {allowed}")
        if float(value) not in Interval.parse(allowed):
            raise HyperparameterError(f"{method}: {name} = {value!r}: must lie in {allowed}")
    elif value not in allowed:
        raise HyperparameterError(f"{method}: {name} = {value!r}: must be one of {', '.join(map(repr, allowed))}")


def _traced(value: object) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def whole(method: str, name: str, value: object, allowed: str) -> int:
    """``value`` as an int; a fraction is refused, not cut off.

    Raises:
        HyperparameterError: it lies outside ``allowed`` or is no whole number.
    """
    check(method, name, value, allowed)
    number = float(value)  # type: ignore[arg-type]  # checked
    if not number.is_integer():
        raise HyperparameterError(f"{method}: {name} = {value!r}: must be a whole number in {allowed}")
    return int(number)
