"""Turn the validator's errors into sentences: dotted key, value, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from curvebench.cards.base import PATTERNS, Problem, show
from curvebench.errors import did_you_mean

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_SENTENCES = {
    "string_type": "must be a string",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "dataclass_type": "must be a table",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "tuple_type": "must be a list",
    "finite_number": "must be finite",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
}


def complaints(errors: list[ErrorDetails], raw: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Problem]:
    """One problem per key, in the validator's order; alternatives of a union are joined by "or"."""
    grouped: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for error in errors:
        place = _place(error, raw)
        if error["type"] == "too_short" and _value(raw, place):
            continue  # not empty: its items are wrong, and have complaints of their own
        grouped.setdefault(place, []).append(error)
    for place, group in grouped.items():
        yield _complain(place, group, raw, schema)


def _place(error: ErrorDetails, raw: Mapping[str, Any]) -> tuple[str | int, ...]:
    """The error's location without the validator's own marks, such as the name of a union's alternative."""
    node: Any = raw
    place: list[str | int] = []
    for part in error["loc"]:
        inside = part in node if isinstance(node, Mapping) else isinstance(node, list) and isinstance(part, int)
        if not inside and error["type"] not in ("missing", *_UNKNOWN):
            break
        place.append(part)
        node = node[part] if inside else None
    return tuple(place)


def _complain(
    place: tuple[str | int, ...], group: list[ErrorDetails], raw: Mapping[str, Any], schema: Mapping[str, Any]
) -> Problem:
    key, first = dotted(place), group[0]
    if first["type"] in _UNKNOWN:
        return key, f"unknown key{did_you_mean(str(place[-1]), _known(schema, place[:-1]))}"
    if first["loc"][-1:] == ("[key]",):
        if first["type"] in ("enum", "literal_error"):
            return key, f"unknown key{did_you_mean(str(place[-1]), _known(schema, place[:-1]))}"
        return key, f"this name {_sentence(first)}"
    if first["type"] == "missing":
        about = _node(schema, place).get("description")
        return key, f"missing key: {about}" if about else "missing key"
    sentences = list(dict.fromkeys(map(_sentence, group)))
    if "must be finite" in sentences:
        sentences = ["must be finite"]  # a number, so the union's other alternatives are beside the point
    if "must be a number" in sentences:
        sentences = [sentence for sentence in sentences if sentence != "must be a whole number"]
    first_sentence, *others = sentences
    together = " or ".join([first_sentence, *(other.removeprefix("must be ") for other in others)])
    return f"{key} = {show(_value(raw, place))}", together


def _sentence(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"must match {context['pattern']}")
    template = _SENTENCES.get(error["type"])
    return template.format(**context) if template else error["msg"]


def dotted(place: tuple[str | int, ...]) -> str:
    """``("files", 0, "path")`` as ``files[0].path``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _value(raw: Any, place: tuple[str | int, ...]) -> Any:
    for part in place:
        raw = raw[part]
    return raw


def _node(schema: Mapping[str, Any], place: tuple[str | int, ...]) -> Mapping[str, Any]:
    """The part of a JSON Schema that describes ``place``; empty where the schema says nothing."""
    node = _follow(schema, schema)
    for part in place:
        if isinstance(part, int):
            inner = node.get("items", {})
        else:
            inner = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        about = inner.get("description") if isinstance(inner, Mapping) else None
        node = _follow(inner, schema) if isinstance(inner, Mapping) else {}
        node = {**node, "description": about} if about else node
    return node


def _follow(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolve a reference, also behind ``X or null``."""
    for option in node.get("anyOf", ()):
        if "$ref" in option:
            node = option
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node


def _known(schema: Mapping[str, Any], place: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at ``place`` may have."""
    node = _node(schema, place)
    names = _follow(node.get("propertyNames", {}), schema)
    return sorted(node.get("properties") or names.get("enum") or ())
