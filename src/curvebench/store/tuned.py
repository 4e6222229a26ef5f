"""Tuned hyperparameters: ``<root>/<task>/<method>.json``, generated from a stored pool of trials and committed.

Both frameworks use one file; a method with ``twin = false`` is two methods and has ``<method>-<framework>.json`` each.
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
    "method": (str,),
    "scale": (str,),
    "framework": (str,),
    "pool": (str,),
    "trials": (int,),
    "hyperparameters": (dict,),
    "metric": (int, float, type(None)),
    "label": (str,),
    "cost": (dict,),
    "runs": (list,),
}
COST = ("seconds", "oracle_calls")


def tuned_path(root: str | os.PathLike[str], task: str, method: str, framework: str, twin: bool) -> Path:
    """Where the tuned hyperparameters of (task, method) stand: shared by both frameworks if the method is a twin."""
    return Path(root) / task / (f"{method}.json" if twin else f"{method}-{framework}.json")


def tuned(root: str | os.PathLike[str], task: str, method: str, framework: str, twin: bool) -> Json | None:
    """Read the tuned hyperparameters of (task, method), or None if it was never tuned.

    Raises:
        StoreError: the file is there but is not what :func:`write_tuned` writes, or is of a newer schema.
    """
    path = tuned_path(root, task, method, framework, twin)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not valid JSON ({error}): make it again with `curvebench tune`") from error
    check(path, data, task, method)
    result: Json = data
    return result


def write_tuned(root: str | os.PathLike[str], content: Json, twin: bool) -> Path:
    """Write or replace the file of (task, method) and return its path.

    Raises:
        StoreError: ``content`` lacks a key or has one too many, or the folder cannot be written.
    """
    content = {"schema": SCHEMA, **content}
    path = tuned_path(root, str(content.get("task")), str(content.get("method")), str(content.get("framework")), twin)
    check(path, content, str(content.get("task")), str(content.get("method")))
    text = json.dumps({key: content[key] for key in KEYS}, indent=2, allow_nan=False) + "\n"
    with explained(path, "nothing was changed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrite(path, text.encode())
    return path


def check(path: Path, data: object, task: str, method: str) -> None:
    """Raise a :class:`StoreError` with file, key and what is allowed unless ``data`` is tuned hyperparameters."""
    if not isinstance(data, dict):
        raise StoreError(f"{path}: must hold a JSON object")
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise StoreError(f"{path}: written by a newer curvebench (schema {schema}, this one reads up to {SCHEMA})")
    for key, types in KEYS.items():
        if key not in data:
            raise StoreError(f"{path}: {key}: is missing")
        if not isinstance(data[key], types) or isinstance(data[key], bool):
            raise StoreError(f"{path}: {key} = {data[key]!r}: must be {' or '.join(t.__name__ for t in types)}")
    if unknown := sorted(set(data) - set(KEYS)):
        raise StoreError(f"{path}: unknown keys {', '.join(unknown)}")
    if missing := [key for key in COST if not isinstance(data["cost"].get(key), (int, float))]:
        raise StoreError(f"{path}: cost.{missing[0]}: must be a number")
    if data["trials"] < 1:
        raise StoreError(f"{path}: trials = {data['trials']}: must be at least 1")
    for key, wanted in (("task", task), ("method", method)):
        if data[key] != wanted:
            raise StoreError(f"{path}: {key} = {data[key]!r}: the file's place says {wanted!r}")
    for name, value in data["hyperparameters"].items():
        if not isinstance(value, (int, float, str, bool)):
            raise StoreError(f"{path}: hyperparameters.{name} = {value!r}: must be a number, a word or true/false")
