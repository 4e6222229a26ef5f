"""Read TOML; the only file access of the cards. Imports no validator."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from curvebench.cards.places import check_kind, display, names, root
from curvebench.errors import CardError

_WHERE = re.compile(r"(?P<what>.*) \(at (?P<where>.*)\)\.?$", re.DOTALL)


def read(path: Path) -> dict[str, Any]:
    """The content of a TOML file as plain dicts, lists and scalars.

    Raises:
        CardError: unreadable, not UTF-8, or not TOML (with line and column).
    """
    shown = display(path)
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise CardError(f"{shown}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise CardError(f"{shown}: byte {error.start}: not UTF-8, which TOML must be") from None
    except tomllib.TOMLDecodeError as error:
        found = _WHERE.match(str(error))
        what, where = (found["what"], found["where"]) if found else (str(error), "somewhere")
        raise CardError(f"{shown}: {where}: not TOML: {what}") from None


def headings(kind: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What a listing shows of every card of a kind, without validating: ``(rows, problems)``.

    A row holds ``name`` (the file's stem) and the card's own scalars and lists of scalars; methods also hold
    ``frameworks``. A file that is not TOML still has its row; its problem is a line of ``problems``.

    Raises:
        UnknownNameError: ``kind`` is not one of :data:`~curvebench.cards.places.KINDS`.
    """
    check_kind(kind)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in names(kind):
        try:
            data = read(root() / kind / f"{name}.toml")
        except CardError as error:
            problems.append(str(error))
            data = {}
        row = {"name": name} | {key: value for key, value in data.items() if key != "name" and _is_flat(value)}
        if kind == "methods":
            implementations = data.get("implementation")
            row["frameworks"] = sorted(implementations) if isinstance(implementations, dict) else []
        rows.append(row)
    return rows, problems


def _is_flat(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str | int | float) for item in value)
    return isinstance(value, str | int | float)
