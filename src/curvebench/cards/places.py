"""Where the cards lie and what they are called; parses nothing."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import curvebench
from curvebench.errors import CardError, UnknownNameError

KINDS = ("methods", "tasks", "datasets", "studies", "papers")
"""The kinds of cards; each is a folder below the root with one ``<name>.toml`` per card."""

SINGULAR = {"methods": "method", "tasks": "task", "datasets": "dataset", "studies": "study", "papers": "paper"}
VARIABLE = "CURVEBENCH_CARDS"


def _holds_cards(folder: Path) -> bool:
    return any((folder / "methods").glob("*.toml"))


def _find() -> tuple[Path, str]:
    """The root and the clause that says why it is this one."""
    given = os.environ.get(VARIABLE)
    if not given:
        return _own()
    folder = Path(given).expanduser().absolute()
    if not any((folder / kind).is_dir() for kind in KINDS):
        raise CardError(f"{VARIABLE} = {given!r}: must be a folder with at least one of {', '.join(KINDS)} in it")
    return folder, f"the environment variable {VARIABLE} says so"


@cache
def _own() -> tuple[Path, str]:
    package = Path(curvebench.__file__).resolve().parent
    checkout = package.parents[1]
    if _holds_cards(checkout):
        return checkout, "curvebench runs from a checkout, and methods/ stands at its top"
    if _holds_cards(package / "_cards"):
        return package / "_cards", "the cards that the installed package carries"
    raise CardError(
        f"no cards: neither the installed package nor a checkout around it holds methods/*.toml; "
        f"reinstall curvebench or set {VARIABLE} to the folder that holds methods/, tasks/, datasets/ and studies/"
    )


def root() -> Path:
    """The folder that holds ``methods/``, ``tasks/``, ``datasets/`` and ``studies/``; never the working directory.

    ``$CURVEBENCH_CARDS`` first, then the checkout that curvebench runs from, then the cards inside the wheel.

    Raises:
        CardError: there is no such folder.
    """
    return _find()[0]


def origin() -> str:
    """Why :func:`root` is what it is, as a clause for ``curvebench doctor``.

    Raises:
        CardError: there is no root.
    """
    return _find()[1]


def check_kind(kind: str) -> None:
    """Refuse a kind of card that does not exist.

    Raises:
        UnknownNameError: with the nearest kinds.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of card", kind, KINDS)


def names(kind: str) -> list[str]:
    """The names of all cards of a kind, sorted; reads the folder, not the files.

    Raises:
        UnknownNameError: ``kind`` is not one of :data:`KINDS`.
    """
    check_kind(kind)
    return sorted(path.stem for path in (root() / kind).glob("*.toml"))


def path_of(kind: str, name: str) -> Path:
    """The file of the card ``name``.

    Raises:
        UnknownNameError: no such kind, or no such card: with the nearest names.
    """
    known = names(kind)
    if name not in known:
        raise UnknownNameError(SINGULAR[kind], name, known)
    return root() / kind / f"{name}.toml"


def display(path: Path) -> str:
    """``path`` as messages show it: relative to the cards root when it lies below it, else as it was given."""
    try:
        base = root()
    except CardError:
        return path.as_posix()
    absolute = path.absolute()
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else path.as_posix()
