"""Records that come from elsewhere: other folders, other machines, older schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from curvebench.errors import StoreError
from curvebench.store.folder import Store
from curvebench.store.record import NewerSchemaError, Record, RecordError
from curvebench.types import Json


@dataclass
class Taken:
    """What came of taking records in: new ones, those that were there, and what was refused and why."""

    new: int = 0
    there: int = 0
    refused: tuple[str, ...] = ()


def merge(target: Store, source: Store) -> Taken:
    """Append the records of ``source`` that ``target`` lacks. The source is only read.

    Two machines count attempts apart, so a record is the same only if all of it but the attempt is.

    Raises:
        StoreError: the target cannot be written.
    """
    found: list[Record] = []
    refused = []
    for path in source.files():
        try:
            found.append(Record.from_json(json.loads(path.read_bytes())))
        except NewerSchemaError as error:
            refused.append(f"{path}: {error}")
        except (OSError, ValueError, RecordError) as error:
            refused.append(f"{path}: {error}; left where it is")
    taken = take(target, found)
    return replace(taken, refused=tuple(refused))


def take(target: Store, records: Iterable[Record]) -> Taken:
    """Append those records that are not there yet.

    Raises:
        StoreError: the store cannot be written.
    """
    taken = Taken()
    for record in records:
        there: list[Record] = []
        for entry in target.entries(record.keys.run):
            if entry.path.name.startswith(record.keys.stem + "-"):
                target.load(entry.path, there, [])
        if any(replace(record, attempt=other.attempt) == other for other in there):
            taken.there += 1
            continue
        target.append(record)
        taken.new += 1
    return taken


def foreign(place: Path) -> Iterator[Json]:
    """The records of a file or folder, of whatever schema, as they were written.

    A folder of ``*.json`` at any depth (a store among them), one ``.json``, a ``.jsonl`` with one record a line, or
    a ``.parquet`` that ``curvebench export`` wrote.

    Raises:
        StoreError: it cannot be read as any of these.
    """
    if place.is_dir():
        for path in sorted(place.rglob("*.json")):
            if not path.name.startswith(".") and "quarantine" not in path.parts:
                yield from foreign(path)
    elif place.suffix == ".parquet":
        import pandas as pd  # the one format that needs it

        table = pd.read_parquet(place)
        if "record" not in table:
            raise StoreError(f"{place}: not an export of curvebench: it has no column 'record'")
        for text in table["record"]:
            yield parsed(text, place)
    else:
        try:
            content = place.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{place}: cannot be read: {error}") from error
        for line in content.splitlines() if place.suffix == ".jsonl" else [content]:
            if line.strip():
                yield parsed(line, place)


def parsed(text: str, place: Path) -> Json:
    """One record out of its text."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise StoreError(f"{place}: not valid JSON ({str(error)[:80]})") from error
    if not isinstance(data, dict):
        raise StoreError(f"{place}: must hold a record, an object")
    found: Json = data
    return found


def import_records(target: Store, place: Path) -> Taken:
    """Bring records of older schemas to the present one and append those that are not there yet.

    Raises:
        StoreError: nothing can be read there, or the store cannot be written.
    """
    found: list[Record] = []
    refused = []
    for data in foreign(place):
        try:
            found.append(Record.from_json(data))
        except StoreError as error:
            keys = data.get("keys")
            name = keys.get("run", "?") if isinstance(keys, dict) else "?"
            refused.append(f"{place}: record of run {name}: {error}")
    return replace(take(target, found), refused=tuple(refused))
