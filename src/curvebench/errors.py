"""Every exception that curvebench raises on purpose. The message is a sentence a user can act on.

The command line prints the message of a :class:`CurvebenchError` to stderr and exits with code 2; anything else is a
defect of curvebench and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CurvebenchError(Exception):
    """Base of all errors whose message is meant for the user."""


class CardError(CurvebenchError):
    """A card is missing, unreadable or invalid: names the file, the key, the value and what is allowed."""


class UnknownNameError(CardError):
    """No card, task, method, data set or study has this name: suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)}")


class HyperparameterError(CurvebenchError):
    """A hyperparameter is unknown or outside its range: names it, its value and the allowed range."""


class UnmetNeedError(CurvebenchError):
    """A method needs a query that the task cannot answer. Raised before training."""


class UndeclaredQueryError(CurvebenchError):
    """A method asked the oracle for something that its ``needs`` does not list."""


class MissingGraphError(CurvebenchError):
    """Curvature was asked for, but the gradient carries no autograd graph."""


class MissingPackageError(CurvebenchError):
    """An optional package is not installed: names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'curvebench[{extra}]'")


class DeviceError(CurvebenchError):
    """The device asked for is not on this machine."""


class DataError(CurvebenchError):
    """A data file is missing, truncated or not the official one: the message says which command mends it."""


class StoreError(CurvebenchError):
    """The record store cannot be read or written: read-only, full, or written by a newer curvebench."""


class StudyInterrupted(CurvebenchError):
    """A study was stopped by SIGINT or SIGTERM; everything finished is stored."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``": did you mean 'a' or 'b'?"``, or the list of all known names when none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return ": did you mean " + " or ".join(repr(n) for n in near) + "?"
    if not names:
        return ": there are none"
    return ": known are " + ", ".join(names)
