"""Curvature quality: ``<root>/<task>.json``, one measurement of all approximations on one task, replaced as a whole.

It is no record: nothing is run against a clock or a target. A cell is one approximation at one checkpoint of one seed
block, against one truth, with one damping.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from curvebench.errors import StoreError
from curvebench.store.files import explained, overwrite
from curvebench.types import Json

SCHEMA = 1
KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "task": (str,),
    "title": (str,),
    "scale": (str,),
    "d": (int,),
    "n": (int,),
    "seeds": (int,),
    "dampings": (list,),
    "trained_by": (str,),
    "checkpoints": (list,),
    "approximations": (list,),
    "cells": (list,),
    "provenance": (dict,),
}
CELL: dict[str, tuple[type, ...]] = {
    "approximation": (str,),
    "seed_block": (int,),
    "checkpoint": (str,),
    "truth": (str,),
    "damping": (float,),
    "status": (str,),
}
MEASURES = (
    "relative_error", "block_error", "trace_ratio", "top_error", "spectrum", "inverse_error", "residual", "cosine",
    "eff", "scale", "stability", "decrease",
)  # fmt: skip
"""Numbers of a cell; None where one does not exist."""


def write_quality(root: str | os.PathLike[str], content: Json) -> Path:
    """Write or replace the file of a task and return its path.

    Raises:
        StoreError: ``content`` is not what this schema says, or the folder cannot be written.
    """
    path = Path(root) / f"{content.get('task')}.json"
    check(path, content)
    head = {key: content[key] for key in KEYS if key != "cells"}
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in head.items()]
    cells = ",\n".join(json.dumps(cell, allow_nan=False) for cell in content["cells"])
    with explained(path, "nothing was changed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrite(path, ("{\n" + ",\n".join(lines) + ',\n"cells": [\n' + cells + "\n]\n}\n").encode())
    return path


def read_quality(root: str | os.PathLike[str], task: str | None = None) -> list[Json]:
    """The results of one task or of all, sorted by name; empty where nothing was measured.

    Raises:
        StoreError: a file is not what :func:`write_quality` writes, or is of a newer schema.
    """
    found = []
    for path in sorted(Path(root).glob(f"{task or '*'}.json")):
        try:
            data = json.loads(path.read_bytes())
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path}: not valid JSON ({error}): make it again with `curvebench quality`") from error
        check(path, data)
        found.append(data)
    return found


def check(path: Path, data: object) -> None:
    """Raise a :class:`StoreError` with file, key and what is allowed unless ``data`` is such a result."""
    if not isinstance(data, dict):
        raise StoreError(f"{path}: must hold a JSON object")
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise StoreError(f"{path}: written by a newer curvebench (schema {schema}, this one reads up to {SCHEMA})")
    _keys(path, data, KEYS, "")
    if data["task"] != path.stem:
        raise StoreError(f"{path}: task = {data['task']!r}: the file's place says {path.stem!r}")
    names = {entry["name"] for entry in data["approximations"]}
    for place, cell in enumerate(data["cells"]):
        _keys(path, cell, CELL, f"cells[{place}].")
        if cell["approximation"] not in names:
            raise StoreError(f"{path}: cells[{place}].approximation = {cell['approximation']!r}: not among {names}")
        for name in MEASURES:
            value = cell.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise StoreError(f"{path}: cells[{place}].{name} = {value!r}: must be a number or null")


def _keys(path: Path, data: Json, wanted: dict[str, tuple[type, ...]], where: str) -> None:
    for key, types in wanted.items():
        if key not in data:
            raise StoreError(f"{path}: {where}{key}: is missing")
        if not isinstance(data[key], types) or isinstance(data[key], bool):
            raise StoreError(f"{path}: {where}{key} = {data[key]!r}: must be {' or '.join(t.__name__ for t in types)}")
