"""Plain aligned text: what ``list``, ``show`` and ``doctor`` print. Needs no package, so that it is instant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def cell(value: Any) -> str:
    """A value as people write it: lists with commas, booleans as yes and no, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {cell(item)}" for key, item in value.items())
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def columns(rows: Iterable[Sequence[Any]], header: Sequence[str] = (), indent: str = "") -> str:
    """Rows in aligned columns, two spaces between them; a column that is empty throughout is left out."""
    body = [[cell(value) for value in row] for row in rows]
    kept = [i for i in range(len(body[0]) if body else 0) if any(row[i] for row in body)]
    lines = [[row[i] for i in kept] for row in ([list(header)] if header else []) + body] if body else []
    widths = [max(len(line[i]) for line in lines) for i in range(len(kept))]
    return "\n".join(
        indent + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def outline(content: Mapping[str, Any], indent: str = "") -> str:
    """Nested content: flat values first, aligned; then every table under its name; lists of tables as rows."""
    flat = {key: value for key, value in content.items() if not _nested(value) and value not in (None, "", [], {})}
    parts = [columns(flat.items(), indent=indent)] if flat else []
    for key, value in content.items():
        if _nested(value):
            parts.append(f"{indent}{key}\n{_block(value, indent + '  ')}")
    return "\n\n".join(parts) if not indent else "\n".join(parts)


def _nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _block(value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        return outline(value, indent)
    keys = list(dict.fromkeys(key for row in value for key in row))
    return columns([[row.get(key) for key in keys] for row in value], keys, indent)
