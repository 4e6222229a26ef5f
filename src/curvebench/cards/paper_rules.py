"""Rules of a paper card that hold between keys. They read unvalidated content, so that all problems show at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from curvebench.cards.base import Problem, show
from curvebench.errors import did_you_mean

_NEEDED = {
    "at-most": ("bound",),
    "at-least": ("bound",),
    "between": ("low", "high"),
    "less": ("than",),
    "greater": ("than",),
}


def problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """All broken rules of a paper card."""
    tables = list(_entries(raw, "tables", ""))
    cells = [(f"{key}.cells[{k}]", cell, table) for key, table in tables for k, cell in _inner(table)]
    claims = list(_entries(raw, "claims", ""))
    if not tables and not claims:
        yield "tables", "missing key: a paper has at least one of [[tables]] and [[claims]]"
    yield from _unique(tables)
    yield from _unique([(key, cell) for key, cell, _ in cells])
    yield from _unique(claims)
    values = {cell["id"]: cell for _, cell, _ in cells if isinstance(cell.get("id"), str)}
    for key, table in tables:
        yield from _named(key, table)
        yield from _margin(key, table)
    for key, cell, table in cells:
        yield from _cell(key, cell, table, values)
    for key, claim in claims:
        yield from _named(key, claim)
        yield from _claim(key, claim)


def _entries(raw: Mapping[str, Any], name: str, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    listed = raw.get(name)
    for index, entry in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(entry, Mapping):
            yield f"{prefix}{name}[{index}]", entry


def _inner(table: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    listed = table.get("cells")
    for index, entry in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(entry, Mapping):
            yield index, entry


def _unique(entries: list[tuple[str, Mapping[str, Any]]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for key, entry in entries:
        name = entry.get("id")
        if isinstance(name, str):
            if name in seen:
                yield f"{key}.id = {show(name)}", "is used twice"
            seen.add(name)


def _named(key: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
    if entry.get("source") in ("third-party", "rerun") and "by" not in entry:
        yield f"{key}.by", f"missing key: source = {show(entry['source'])} needs the name of who says it"


def _margin(key: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
    if "margin" in entry and "margin_reason" not in entry:
        yield f"{key}.margin_reason", "missing key: a margin needs its reason, said before any run"
    if "margin_reason" in entry and "margin" not in entry:
        yield f"{key}.margin_reason", "only allowed with a margin"


def _cell(
    key: str, cell: Mapping[str, Any], table: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]
) -> Iterator[Problem]:
    if ("value" in cell) == ("text" in cell):
        yield key, "needs either value, or text for what is no number"
    if "spread" in cell and "value" not in cell:
        yield f"{key}.spread", "only allowed with a value"
    yield from _margin(key, cell)
    baseline = cell.get("baseline")
    if isinstance(baseline, str):
        if baseline == cell.get("id"):
            yield f"{key}.baseline = {show(baseline)}", "must be another cell"
        elif baseline not in values:
            yield f"{key}.baseline = {show(baseline)}", f"no cell of this paper{did_you_mean(baseline, values)}"
        elif "value" not in values[baseline]:
            yield f"{key}.baseline = {show(baseline)}", "must be a cell with a value"
    yield from _proxy(key, cell, table, values)
    yield from _measured(key, cell, "measure" in cell or "not_run" in cell or "not_run" in table)
    yield from _needs(key, table if "not_run" not in cell and "measure" not in cell else cell)


def _proxy(
    key: str, cell: Mapping[str, Any], table: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]
) -> Iterator[Problem]:
    """What a measure needs to be held against the number: at a reduced scale the number itself is not compared."""
    measure, baseline = cell.get("measure"), cell.get("baseline")
    if not isinstance(measure, Mapping):
        return
    reduced = measure.get("scale") != "paper" or "proxy" in measure
    if reduced and baseline is None and "margin" not in cell and "margin" not in table:
        yield f"{key}.baseline", "missing key: a proxy is held against a baseline cell, or needs a margin of its own"
    if isinstance(baseline, str) and baseline in values and "measure" not in values[baseline]:
        yield f"{key}.baseline = {show(baseline)}", "must be a cell with a measure"


def _measured(key: str, entry: Mapping[str, Any], said: bool) -> Iterator[Problem]:
    if not said:
        yield f"{key}.measure", "missing key: what curvebench measures of it, or not_run = 'needs ...'"
    if "measure" in entry and "not_run" in entry:
        yield f"{key}.not_run", "only allowed without a measure"


def _needs(key: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
    reason = entry.get("not_run")
    if isinstance(reason, str) and not reason.startswith("needs "):
        yield f"{key}.not_run = {show(reason)}", "must begin with 'needs '"


def _claim(key: str, claim: Mapping[str, Any]) -> Iterator[Problem]:
    yield from _measured(key, claim, "measure" in claim or "not_run" in claim)
    yield from _needs(key, claim)
    decision = claim.get("decision")
    kind = decision.get("kind") if isinstance(decision, Mapping) else None
    if not isinstance(decision, Mapping) or kind not in _NEEDED:
        return
    for name in _NEEDED[kind]:
        if name not in decision:
            yield f"{key}.decision.{name}", f"missing key: kind = {show(kind)} needs it"
    for name in ("bound", "low", "high", "than"):
        if name in decision and name not in _NEEDED[kind]:
            yield f"{key}.decision.{name}", f"not allowed with kind = {show(kind)}"
    low, high = decision.get("low"), decision.get("high")
    if kind == "between" and isinstance(low, int | float) and isinstance(high, int | float) and not low <= high:
        yield f"{key}.decision.high = {show(high)}", f"must be >= low = {show(low)}"
