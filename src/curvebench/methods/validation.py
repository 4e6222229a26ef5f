"""Refuse a bad hyperparameter at construction, naming it, its value and the allowed range."""

from __future__ import annotations

from collections.abc import Sequence

from curvebench.cards.interval import Interval
from curvebench.errors import HyperparameterError


def check(method: str, name: str, value: object, allowed: str | Sequence[str]) -> None:
    """Raise unless ``value`` lies in the interval ``allowed`` such as ``(0, inf)``, or is one of the words.

    Raises:
        HyperparameterError: it does not.
    """
    if isinstance(allowed, str):
        if not isinstance(value, (int, float)) or value not in Interval.parse(allowed):
            raise HyperparameterError(f"{method}: {name} = {value!r}: must lie in {allowed}")
    elif value not in allowed:
        raise HyperparameterError(f"{method}: {name} = {value!r}: must be one of {', '.join(map(repr, allowed))}")
