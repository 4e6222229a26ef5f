"""Rules of a method card that hold between keys. They read unvalidated content, so that all problems show at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from curvebench.cards.base import Problem, is_number, show, table, tables
from curvebench.cards.formula import variables_of
from curvebench.cards.hyperparameters import Hyperparameter
from curvebench.cards.interval import Interval
from curvebench.errors import CardError, did_you_mean
from curvebench.spec import Query

_QUERIES = frozenset(str(query) for query in Query)
SIZES = ("d", "batch")
"""Variables of every cost formula: the number of parameters, and of samples in a batch."""


def problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """All broken rules of a method card."""
    yield from _twin(raw)
    for name, entry in tables(raw, "hyperparameters").items():
        yield from _hyperparameter(f"hyperparameters.{name}", entry)
    for name, entry in tables(raw, "search").items():
        yield from _search(name, entry, table(raw, "hyperparameters"))
    yield from _formulas(raw)
    yield from _references(raw)


def _twin(raw: Mapping[str, Any]) -> Iterator[Problem]:
    twin = raw.get("twin", True)
    if twin is False and "twin_reason" not in raw:
        yield "twin_reason", "missing key: twin = false needs the reason why torch and jax differ"
    if twin is True and "twin_reason" in raw:
        yield "twin_reason", "only allowed with twin = false"


def _hyperparameter(key: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
    default, interval, choices = entry.get("default"), entry.get("range"), entry.get("choices")
    if is_number(default):
        if choices is not None:
            yield f"{key}.choices", "only allowed for strings: a number has a range"
        if interval is None:
            yield f"{key}.range", "missing key: a number needs the interval it lies in, such as (0, inf) or [0, 1)"
    elif isinstance(default, str):
        if interval is not None:
            yield f"{key}.range", "only allowed for numbers: a string has choices"
        if choices is None:
            yield f"{key}.choices", "missing key: a string needs the list of all that are allowed"
    elif isinstance(default, bool) and (interval is not None or choices is not None):
        yield key, "a boolean takes neither range nor choices"
    yield from _default(key, default, interval, choices)


def _default(key: str, default: Any, interval: Any, choices: Any) -> Iterator[Problem]:
    if isinstance(interval, str) and is_number(default):
        try:
            Interval.parse(interval)
        except ValueError as error:
            yield f"{key}.range = {show(interval)}", str(error)
            return
    listed = tuple(choices) if isinstance(choices, list) and choices else None
    if (is_number(default) and isinstance(interval, str)) or (isinstance(default, str) and listed):
        known_range = interval if isinstance(interval, str) else None
        try:
            Hyperparameter(default=default, range=known_range, choices=listed).convert(default)
        except ValueError as error:
            yield f"{key}.default = {show(default)}", str(error)


def _search(name: str, entry: Mapping[str, Any], declared: Mapping[str, Any]) -> Iterator[Problem]:
    key = f"search.{name}"
    hyperparameter = declared.get(name)
    if not isinstance(hyperparameter, Mapping):
        if name not in declared:
            yield key, f"not a declared hyperparameter{did_you_mean(name, declared)}"
        return
    if isinstance(hyperparameter.get("default"), str | bool):
        yield key, "only numbers can be searched over an interval"
        return
    low, high, fine = entry.get("low"), entry.get("high"), True
    for end, value in (("low", low), ("high", high)):
        if not is_number(value):
            fine = False
        elif sentence := _end(value, entry.get("scale", "log"), hyperparameter):
            fine = False
            yield f"{key}.{end} = {show(value)}", sentence
    if fine and is_number(low) and is_number(high) and not high > low:  # type: ignore[operator]
        yield f"{key}.high = {show(high)}", f"must be > low = {show(low)}"


def _end(value: Any, scale: Any, hyperparameter: Mapping[str, Any]) -> str:
    """What is wrong with one end of a search interval, or nothing."""
    if scale == "log" and not value > 0:
        return "must be > 0"
    if isinstance(hyperparameter.get("default"), int) and value != int(value):
        return "must be a whole number, as the hyperparameter is"
    interval = hyperparameter.get("range")
    try:
        outside = isinstance(interval, str) and value not in Interval.parse(interval)
    except ValueError:
        return ""  # the range itself is reported
    return f"must lie in {interval}" if outside else ""


def _formulas(raw: Mapping[str, Any]) -> Iterator[Problem]:
    cost, needs = table(raw, "cost"), raw.get("needs")
    numeric = {
        name for name, entry in tables(raw, "hyperparameters").items() if not isinstance(entry.get("default"), str)
    }
    steps = table(cost, "step")
    for query, value in steps.items():
        if isinstance(needs, list) and query in _QUERIES and query not in needs:
            yield f"cost.step.{query}", f"not in needs = {show(needs)}"
        if is_number(value) and value < 0:
            yield f"cost.step.{query} = {show(value)}", "must be >= 0"
    formulas = {f"cost.step.{query}": value for query, value in steps.items()} | {
        f"cost.{name}": cost.get(name) for name in ("state", "host", "refresh_every")
    }
    for key, formula in formulas.items():
        if isinstance(formula, str):
            yield from _formula(f"{key} = {show(formula)}", formula, numeric | set(SIZES))


def _formula(key: str, formula: str, known: set[str]) -> Iterator[Problem]:
    try:
        unknown = variables_of(formula) - known
    except CardError as error:
        # the message begins with the formula, which the key already shows
        yield key, str(error).partition(": ")[2]
        return
    for name in sorted(unknown):
        yield key, f"unknown variable {name!r}{did_you_mean(name, known)}"


def _references(raw: Mapping[str, Any]) -> Iterator[Problem]:
    declared = table(raw, "hyperparameters")
    used: dict[str, set[str]] = {}
    for framework, entry in tables(raw, "implementation").items():
        used[framework] = set()
        for key, reference in _dollars(table(entry, "arguments"), f"implementation.{framework}.arguments"):
            used[framework].add(reference)
            if reference not in declared:
                yield f'{key} = "${reference}"', f"not a declared hyperparameter{did_you_mean(reference, declared)}"
    if raw.get("twin") is False:
        used = {"any implementation": set().union(*used.values())} if used else {}
    for framework, names in used.items():
        where = framework if framework == "any implementation" else f"implementation.{framework}.arguments"
        for name in declared:
            if name not in names:
                yield f"hyperparameters.{name}", f'not used in {where}: pass it on as "${name}" or drop it'


def _dollars(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every ``"$name"`` below ``node`` with the dotted key where it stands."""
    if isinstance(node, str) and node.startswith("$"):
        yield key, node[1:]
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _dollars(value, f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _dollars(value, f"{key}[{index}]")
