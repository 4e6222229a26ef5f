"""What all cards share: the base class, the field types, equality and the digest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import ConfigDict, Field

from curvebench import spec

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Unknown keys are refused, nothing is converted but int to float, and no number is NaN or infinite."""

NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
TARGET = r"^[^:\s]+:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
MODULE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
WORD = r"^[A-Za-z_]\w*$"
URL = r"^https?://\S+$"
MD5 = r"^[0-9a-f]{32}$"
SHA256 = r"^[0-9a-f]{64}$"
INSIDE = r"^[^/\\:]+(/[^/\\:]+)*$"
INSIDE_OR_EMPTY = r"^([^/\\:]+(/[^/\\:]+)*)?$"

PATTERNS = {
    NAME: "must be lower-case letters, digits and single hyphens",
    TARGET: "must read module:attribute or file.py:attribute",
    MODULE: "must be the dotted name of a module",
    WORD: "must be a Python identifier",
    URL: "must start with http:// or https://",
    MD5: "must be 32 lower-case hexadecimal digits",
    SHA256: "must be 64 lower-case hexadecimal digits",
    INSIDE: "must be a relative path with forward slashes",
    INSIDE_OR_EMPTY: "must be a relative path with forward slashes",
}
"""What each pattern means in words, for messages."""

Text: TypeAlias = Annotated[str, Field(min_length=1)]
Name: TypeAlias = Annotated[str, Field(pattern=NAME)]
Identifier: TypeAlias = Annotated[str, Field(pattern=WORD)]
Target: TypeAlias = Annotated[str, Field(pattern=TARGET)]
Url: TypeAlias = Annotated[str, Field(pattern=URL)]
RelativePath: TypeAlias = Annotated[str, Field(pattern=INSIDE)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Seconds: TypeAlias = Annotated[float, Field(gt=0)]
Option: TypeAlias = float | int | bool | str | tuple[float | int | bool | str, ...]
Problem: TypeAlias = tuple[str, str]
"""The dotted key, with its value where there is one, and the sentence: ``("search.lr.low = -1.0", "must be > 0")``."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """A parsed card. Two cards are equal if their content is, wherever the files lie.

    Args:
        name: equals the file's stem.
        title: how tables and axes call it.
        path: the file, None for a card that was built from a dict.
    """

    KIND: ClassVar[str]

    name: Annotated[Name, Field(description="the name on the command line: the file's stem")]
    title: Annotated[Text, Field(description="how tables and axes call it")]
    path: Path | None = dataclasses.field(default=None, init=False, repr=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical content: comments, order, layout and spelled-out defaults do not matter."""
        return spec.digest(_content(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Card) and other.KIND == self.KIND and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def to_json(self) -> dict[str, Any]:
        """Everything on the card as plain JSON types, defaults spelled out, without the path."""
        out = _plain(self)
        assert isinstance(out, dict)
        return out


REMARK = {"remark": True}
"""Metadata of a field that is no part of the digest."""


def _fields(value: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(value) if field.name != "path" or not isinstance(value, Card)]


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def _content(value: Any) -> Any:
    """``value`` without fields at their defaults, so that a new optional key does not change old digests.

    Nor do fields marked as :data:`REMARK`, which say where a number comes from and decide no run.
    """
    if dataclasses.is_dataclass(value):
        present = [(field, getattr(value, field.name)) for field in _fields(value) if field.metadata != REMARK]
        return {field.name: _content(item) for field, item in present if not _is_default(field, item)}
    if isinstance(value, Mapping):
        return {str(key): _content(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_content(item) for item in value]
    return str(value) if isinstance(value, spec.Query) else value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in _fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, spec.Query) else value


def show(value: object) -> str:
    """``value`` as TOML writes it, shortened: for messages."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    elif isinstance(value, Mapping):
        return "{...}"
    elif isinstance(value, tuple | list):
        text = "[" + ", ".join(map(show, value)) + "]"
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def table(raw: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The table below ``keys`` of unvalidated content, empty if it is absent or something else.

    Cross-checks run on unvalidated content with this, so that all problems of a card are listed at once.
    """
    node: Any = raw
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def tables(raw: Mapping[str, Any], *keys: str) -> dict[str, Mapping[str, Any]]:
    """The tables inside :func:`table`, by name; entries that are no tables are left out."""
    return {name: entry for name, entry in table(raw, *keys).items() if isinstance(entry, Mapping)}


def is_number(value: object) -> bool:
    """Whether a value is an int or a float; TOML's booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
