"""A report in JSON types."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from curvebench.report.site.model import Report


@cache
def adapter() -> TypeAdapter[Report]:
    """What turns a report into JSON types and tells their schema."""
    return TypeAdapter(Report)


def plain(report: Report) -> dict[str, Any]:
    """The report in JSON types, its numbers to 7 significant digits."""
    content: dict[str, Any] = rounded(adapter().dump_python(report, mode="json"))
    return content


def rounded(value: Any) -> Any:
    """The same with shorter numbers."""
    if isinstance(value, float):
        return shorter(value)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def shorter(value: float) -> float | int:
    """Seven significant digits; a whole number without ``.0``."""
    short = float(f"{value:.7g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
