"""What is meant by one side of a comparison: a file, a folder of records, a method, a run, a commit or a machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from curvebench.errors import StoreError
from curvebench.store import Record, Store

KEYS: dict[str, Callable[[Record], str]] = {
    "run": lambda r: r.keys.run,
    "commit": lambda r: r.provenance.git.commit if r.provenance.git else "",
    "machine": lambda r: r.keys.machine,
}
"""What the beginning of a hash may mean, in this order."""

HEX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Side:
    """Some records and what they were asked for by: ``kind`` is file, folder, method, run, commit or machine."""

    name: str
    kind: str
    records: tuple[Record, ...]


def side(name: str, records: Sequence[Record]) -> Side:
    """Find what ``name`` stands for; the first that fits of file, folder, method, run id, commit, machine.

    Hashes may be shortened to four digits; ``commit:`` and ``machine:`` before one say which is meant.

    Raises:
        StoreError: nothing fits, or a short run id fits several runs.
    """
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        return Side(name, "file", (one_file(path),))
    if path.is_dir():
        found, _ = Store(path).scan()
        if not found:
            raise StoreError(f"{name}: no records in this folder")
        return Side(name, "folder", tuple(found))
    if by_method := tuple(r for r in records if r.spec.method == name):
        return Side(name, "method", by_method)
    kind, _, digits = name.rpartition(":")
    if HEX.fullmatch(digits) and kind in ("", "run", "commit", "machine"):
        for what, key in KEYS.items():
            fitting = tuple(r for r in records if key(r).startswith(digits)) if kind in ("", what) else ()
            if len(full := sorted({key(r) for r in fitting})) > 1:
                raise StoreError(f"{name}: fits {len(full)} {what}s: {', '.join(one[:12] for one in full[:4])}")
            if fitting:
                return Side(name, what, fitting)
    raise StoreError(
        f"{name}: neither a record's file, a folder of records, a method with records, nor the beginning of a run id, "
        "a commit or a machine among the records (--records DIR)"
    )


def one_file(path: Path) -> Record:
    """The record in a file, wherever it lies.

    Raises:
        StoreError: it is not one.
    """
    try:
        return Record.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, StoreError) as error:
        raise StoreError(f"{path}: cannot be read as a record: {error}") from error


def only(found: Side, task: str | None, framework: str | None) -> Side:
    """The records of one task, one framework.

    Raises:
        StoreError: none is left.
    """
    kept = tuple(r for r in found.records if task in (None, r.spec.task) and framework in (None, r.spec.framework))
    if not kept:
        what = " and ".join(word for word in (task, framework) if word)
        raise StoreError(f"{found.name}: no record of {what} among its {len(found.records)}")
    return replace(found, records=kept)
