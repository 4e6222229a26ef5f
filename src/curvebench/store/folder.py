"""The store: an append-only folder of records, ``<2 hex>/<run>-<code8>-<machine8>-<attempt>.json``.

The names alone say which runs are there, so that nothing has to be opened to find a run. Several processes, on several
machines over a shared folder, may append at once: a record is written beside its place and linked into it.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from curvebench.errors import StoreError
from curvebench.store.files import explained, place, publish, temporary
from curvebench.store.record import Keys, NewerSchemaError, Record

NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{8})-([0-9a-f]{8})-([1-9][0-9]*)\.json")
SHARD = re.compile(r"[0-9a-f]{2}")
QUARANTINE = "quarantine"
ELSEWHERE = "choose another folder with --records DIR"


class StoreWarning(UserWarning):
    """A file in the store could not be used; the rest was."""


class Entry(NamedTuple):
    """What the name of a record says: run id, first 8 hex digits of code and machine, attempt; and where it is."""

    run: str
    code: str
    machine: str
    attempt: int
    path: Path


@dataclass(frozen=True)
class Problem:
    """A file in the store that is not used, why, and where it was moved (None: it stays where it is)."""

    path: Path
    reason: str
    moved: Path | None

    def __str__(self) -> str:
        where = f"moved to {self.moved}" if self.moved else "left where it is"
        return f"{self.path}: {self.reason}: {where}, not used"


class Store:
    """The records in one folder. Nothing is cached: what another process appends is seen at once.

    Args:
        folder: need not exist; the first :meth:`append` creates it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def append(self, record: Record) -> Path:
        """Store ``record`` under the next free attempt and return its path.

        Raises:
            StoreError: the folder cannot be written or the disk is full; no half file is left.
        """
        shard = self.folder / record.keys.run[:2]
        with explained(shard, ELSEWHERE):
            shard.mkdir(parents=True, exist_ok=True)
            taken = [e.attempt for e in self.entries(record.keys.run) if e.path.name.startswith(record.keys.stem)]
            attempt = max(taken, default=0) + 1
            while True:
                stored = replace(record, attempt=attempt)
                path = shard / stored.name
                if publish(path, encode(stored).encode()):
                    return path
                attempt += 1  # another process was faster

    def probe(self) -> None:
        """Find out before a long study, not after, whether the folder can be written.

        Raises:
            StoreError: it cannot.
        """
        with explained(self.folder, ELSEWHERE):
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary(self.folder, "probe", b"can this folder be written?\n"):
                pass

    def entries(self, run: str | None = None) -> list[Entry]:
        """What the names say, sorted, for one run id or for all. Opens no record."""
        return sorted(entry for entry in map(entry_of, self.files(run)) if entry and run in (None, entry.run))

    def files(self, run: str | None = None) -> Iterator[Path]:
        """Every ``*.json`` in the shards (in the one shard of ``run``), hidden files aside.

        Raises:
            StoreError: the folder is there but is not a folder, or cannot be listed.
        """
        try:
            shards = [run[:2]] if run else sorted(name for name in os.listdir(self.folder) if SHARD.fullmatch(name))
            for shard in shards:
                for name in sorted(listing(self.folder / shard)):
                    if name.endswith(".json") and not name.startswith("."):
                        yield self.folder / shard / name
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read the records in {self.folder}: {error.strerror or error}") from error

    def scan(self) -> tuple[list[Record], list[Problem]]:
        """Read every record; whatever is not one is moved to ``quarantine/`` and reported, and the rest is used.

        Records of a newer schema are whole, so they stay where they are. Sorted by file name.
        """
        records: list[Record] = []
        problems: list[Problem] = []
        for path in self.files():
            self.load(path, records, problems)
        return records, problems

    def read(self) -> list[Record]:
        """:meth:`scan`, with each problem as a :class:`StoreWarning` once everything is read."""
        records, problems = self.scan()
        warn(problems)
        return records

    def find(self, run: str, code: str, machine: str, *, reuse_curves: bool = False) -> Record | None:
        """The attempt that settles a run: the latest that is not to be retried, else the latest.

        Args:
            run: id of the run, 16 hex digits.
            code: key of the code, 64 hex digits.
            machine: key of the machine, 64 hex digits.
            reuse_curves: where this machine has none take another machine's, marked ``reused``.
        """
        keys = Keys(run, code, machine)
        same_code = [e for e in self.entries(run) if e.code == code[:8]]
        here = [e for e in same_code if e.machine == machine[:8]]
        found = self.settling([e.path for e in here], keys, any_machine=False)
        if found is None and reuse_curves:
            others = [e.path for e in same_code if e.machine != machine[:8]]
            found = self.settling(others, keys, any_machine=True)
            found = replace(found, reused=True) if found else None
        return found

    def settled(self, keys: Keys, *, retry_failed: bool = False, reuse_curves: bool = False) -> bool:
        """Whether a run may be skipped: it is stored, and not a failure that is to be tried again."""
        found = self.find(keys.run, keys.code, keys.machine, reuse_curves=reuse_curves)
        return found is not None and not (retry_failed and found.retriable)

    def settling(self, paths: list[Path], keys: Keys, any_machine: bool) -> Record | None:
        """The record among ``paths`` that settles ``keys``; eight digits of a hash may match by chance, all do not."""
        records: list[Record] = []
        problems: list[Problem] = []
        for path in paths:
            self.load(path, records, problems)
        warn(problems)
        records = [r for r in records if r.keys.code == keys.code and (any_machine or r.keys.machine == keys.machine)]
        return max(records, key=precedence, default=None)

    def load(self, path: Path, records: list[Record], problems: list[Problem]) -> None:
        """Read one file into ``records``, or say in ``problems`` why not."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return  # another process has just set it aside
        except OSError as error:
            problems.append(Problem(path, f"cannot be read ({error.strerror or error})", None))
            return
        try:
            records.append(decode(content, path.name))
        except NewerSchemaError as error:
            problems.append(Problem(path, str(error), None))
        except StoreError as error:
            problems.append(Problem(path, str(error), self.set_aside(path)))

    def set_aside(self, path: Path) -> Path | None:
        """Move a file to the quarantine under a free name; None if it cannot be moved."""
        quarantine = self.folder / QUARANTINE
        try:
            quarantine.mkdir(exist_ok=True)
            target, copy = quarantine / path.name, 1
            while not place(path, target):
                target, copy = quarantine / f"{path.name}.{copy}", copy + 1
            return target
        except OSError:
            return None


def precedence(record: Record) -> tuple[bool, str, int]:
    """Which of several records of a run counts: one that is not to be retried, then the latest, then the attempt."""
    return (not record.retriable, record.provenance.started, record.attempt)


def listing(folder: Path) -> list[str]:
    """The names in a shard; a shard that is not there is empty."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def entry_of(path: Path) -> Entry | None:
    """Read a file name, or None if it is not the name of a record."""
    match = NAME.fullmatch(path.name)
    return Entry(match[1], match[2], match[3], int(match[4]), path) if match else None


def encode(record: Record) -> str:
    """One top-level key a line: small, and readable in a diff."""
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in record.to_json().items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def decode(content: bytes, name: str) -> Record:
    """Read a record and check that it is the one that its name promises.

    Raises:
        NewerSchemaError: the record is from a newer curvebench.
        StoreError: it is not a record, or another one.
    """
    try:
        data = json.loads(content, parse_constant=lambda _: None)  # NaN is null, as in from_json
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not valid JSON, truncated or corrupt ({str(error)[:80]})") from error
    record = Record.from_json(data, plain=True)
    if record.name != name:
        raise StoreError(f"a record under a foreign name (its keys say {record.name})")
    return record


def warn(problems: list[Problem]) -> None:
    """Issue one warning per problem."""
    for problem in problems:
        warnings.warn(str(problem), StoreWarning, stacklevel=3)
