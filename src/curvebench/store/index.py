"""A derived index of a store: the scalars of every record and three points of its curve, in one SQLite file.

Reading 100,000 records means parsing 600 MB of JSON; the index holds what listings and statistics need of them in a
tenth of that. It may be deleted at any time: the next reading makes it again. It lies in the store's folder, hidden
and ignored by git; where that cannot be written it is made in memory.

What is in the index is told from file names alone: records are never changed, so a name that is there is up to date.
"""

from __future__ import annotations

import contextlib
import gc
import json
import marshal
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from curvebench.errors import StoreError
from curvebench.spec import Budget, RunSpec, Status, digest
from curvebench.store.folder import Problem, Store, entry_of
from curvebench.store.record import (
    SCHEMA,
    Axes,
    Curve,
    Final,
    Keys,
    Memory,
    Provenance,
    Record,
    Seconds,
    StepTime,
)
from curvebench.types import Json

FILE = ".index.sqlite3"
BATCH = 2000
VERSION = 1
"""Of the layout of the index; a change makes it anew, as does a change of the schema of records."""

OWN = ("started", "load", "cpu_wall_ratio", "others", "steal", "busy")
"""What of the provenance differs from run to run; notes are left in the record."""

Told = Callable[[int, int], None]
"""Progress: records read so far, records to read."""

COMPACT = json.JSONEncoder(separators=(",", ":")).encode

T = TypeVar("T")


class Index:
    """The index of one store.

    Args:
        store: its records.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.folder / FILE
        self._database: sqlite3.Connection | None = None

    def refresh(self, progress: Told | None = None) -> list[Problem]:
        """Take in what is new and drop what is gone.

        Args:
            progress: told after every :data:`BATCH` records.

        Returns:
            What could not be read, as :meth:`Store.scan` says it.
        """
        try:
            return self._refresh(self.database, progress)
        except sqlite3.Error:
            # A half-written file, another program's, or a share without locks: it is only derived.
            self.close()
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._database = opened(":memory:")
            return self._refresh(self._database, progress)

    def records(self, task: str | None = None) -> list[Record]:
        """Every record, sorted by file name, without ledger, work and notes and with three points of its curve.

        The points are the first evaluation, the last one within half of the budget of steps, and the last.
        """
        where, given = ("", ()) if task is None else (" WHERE task = ?", (task,))
        rows = self.database.execute(f"SELECT shared, own FROM record{where} ORDER BY name", given)
        with without_collector():
            return list(self._revive(rows))

    def counts(self) -> list[tuple[str, str, str, str, int, int, str]]:
        """Task, method, framework, status, runs, seed blocks and newest start, sorted: a listing without records."""
        query = """SELECT task, method, framework, status, COUNT(*), COUNT(DISTINCT seed_block), MAX(started)
                   FROM record GROUP BY task, method, framework, status ORDER BY task, method, framework, status"""
        return list(self.database.execute(query))

    @property
    def database(self) -> sqlite3.Connection:
        """The open database."""
        if self._database is None:
            self._database = self._open()
        return self._database

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if not self.store.folder.is_dir() or not os.access(self.store.folder, os.W_OK):
            return opened(":memory:")
        try:
            return opened(self.path)
        except sqlite3.Error:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            return opened(":memory:")

    def _refresh(self, database: sqlite3.Connection, progress: Told | None) -> list[Problem]:
        there = {path.name: path for path in self.store.files()}
        known = {name for (name,) in database.execute("SELECT name FROM record")}
        problems: list[Problem] = []
        with database:
            database.executemany("DELETE FROM record WHERE name = ?", [(name,) for name in known - there.keys()])
        new = sorted(there.keys() - known)
        for start in range(0, len(new), BATCH):
            found: list[Record] = []
            with without_collector():
                for name in new[start : start + BATCH]:
                    self.store.load(there[name], found, problems)
                with database:
                    add(database, found)
            if progress is not None:
                progress(min(start + BATCH, len(new)), len(new))
        return problems

    def _revive(self, rows: Iterator[tuple[int, str]]) -> Iterator[Record]:
        shared: dict[int, dict[str, Any]] = {}
        for key, own in rows:
            if key not in shared:
                (content,) = self.database.execute("SELECT content FROM shared WHERE id = ?", (key,)).fetchone()
                shared[key] = common(json.loads(content))
            yield revived(shared[key], json.loads(own))


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Records hold no cycles: looking for some among millions of objects takes longer than making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def opened(path: Path | str) -> sqlite3.Connection:
    """Open a database whose tables are of this layout; another's content is dropped."""
    database = sqlite3.connect(path, timeout=60.0)
    stamp = int(digest([VERSION, SCHEMA, layout()])[:7], 16)
    if database.execute("PRAGMA user_version").fetchone()[0] != stamp:
        with database:
            database.execute("DROP TABLE IF EXISTS record")
            database.execute("DROP TABLE IF EXISTS shared")
            database.execute("CREATE TABLE shared (id INTEGER PRIMARY KEY, digest TEXT UNIQUE, content TEXT)")
            database.execute(
                "CREATE TABLE record (name TEXT PRIMARY KEY, task TEXT, method TEXT, framework TEXT, status TEXT, "
                "seed_block INTEGER, started TEXT, shared INTEGER, own TEXT) WITHOUT ROWID"
            )
            database.execute("CREATE INDEX by_task ON record (task)")
            database.execute(f"PRAGMA user_version = {stamp}")
    return database


def layout() -> list[list[str]]:
    """The names that a row's lists stand for."""
    return [list(names(kind)) for kind in (Final, Axes, Seconds, StepTime, Memory, Curve, Record, Provenance, Budget)]


NAMES: dict[Any, tuple[str, ...]] = {}


def names(kind: Any) -> tuple[str, ...]:
    """Names of the fields of a dataclass, in order."""
    if kind not in NAMES:
        NAMES[kind] = tuple(field.name for field in fields(kind))
    return NAMES[kind]


def add(database: sqlite3.Connection, found: list[Record]) -> None:
    """Insert records."""
    rows = []
    ids: dict[bytes, int] = {}
    for record in found:
        part = shared_part(record)
        same = marshal.dumps(part)  # only to tell equal ones from others, which JSON takes ten times as long for
        if same not in ids:
            content = json.dumps(part, separators=(",", ":"))
            key = digest(content)
            database.execute("INSERT OR IGNORE INTO shared (digest, content) VALUES (?, ?)", (key, content))
            ids[same] = database.execute("SELECT id FROM shared WHERE digest = ?", (key,)).fetchone()[0]
        spec = record.spec
        own = COMPACT(own_part(record))
        rows.append(
            (record.name, spec.task, spec.method, spec.framework, record.status.value, spec.seed_block,
             record.provenance.started, ids[same], own)
        )  # fmt: skip
    database.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def shared_part(record: Record) -> Json:
    """What many records have in common: titles, metric, spec without seed block, most of the provenance."""
    spec = {name: getattr(record.spec, name) for name in names(RunSpec) if name not in ("seed_block", "budget")}
    provenance = {name: getattr(record.provenance, name) for name in names(Provenance) if name not in (*OWN, "notes")}
    git = record.provenance.git
    provenance["git"] = None if git is None else [git.commit, git.dirty]
    return {
        "schema": record.schema,
        "title": values(record.title),
        "metric": values(record.metric),
        "spec": spec,
        "budget": values(record.spec.budget),
        "provenance": provenance,
    }


def own_part(record: Record) -> list[Any]:
    """The rest, but for ledger, work and notes, as lists in the order of their classes' fields."""
    seconds = [values(part) if isinstance(part, StepTime) else part for part in values(record.seconds)]
    return [
        [record.keys.run, record.keys.code, record.keys.machine],
        record.attempt,
        record.spec.seed_block,
        record.status.value,
        record.reason,
        values(record.final),
        None if record.crossing is None else values(record.crossing),
        values(record.consumed),
        seconds,
        values(record.memory),
        [getattr(record.provenance, name) for name in OWN],
        three_points(record),
    ]


def three_points(record: Record) -> list[list[Any]]:
    """First evaluation, last within half of the budget of steps, last: per list of the curve."""
    steps = record.curve.step
    if not steps:
        return [[] for _ in names(Curve)]
    half = max((i for i, s in enumerate(steps) if 2 * s <= record.spec.budget.steps), default=0)
    places = sorted({0, half, len(steps) - 1})
    return [[getattr(record.curve, name)[i] for i in places] for name in names(Curve)]


def values(part: Any) -> list[Any]:
    """The values of a dataclass, in the order of its fields."""
    return [getattr(part, name) for name in names(type(part))]


def common(content: Json) -> dict[str, Any]:
    """The shared objects of a row, made once: they are frozen, so every record may hold the same ones."""
    from curvebench.store.record import Git, Metric, Title

    spec: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["spec"].items()
    }
    for key in ("hyperparameters", "cards"):
        spec[key] = tuple(map(tuple, spec[key]))
    provenance = content["provenance"]
    git = provenance["git"]
    provenance["git"] = None if git is None else Git(commit=git[0], dirty=git[1])
    return {
        "schema": content["schema"],
        "title": Title(**dict(zip(names(Title), content["title"], strict=True))),
        "metric": Metric(**dict(zip(names(Metric), content["metric"], strict=True))),
        "spec": RunSpec(**spec, budget=Budget(*content["budget"]), seed_block=0),
        "provenance": provenance,
    }


def revived(shared: dict[str, Any], own: list[Any]) -> Record:
    """A record out of a row. What was validated when it was taken in is not validated again."""
    keys, attempt, block, status, reason, final, crossing, consumed, seconds, memory, ran, curve = own
    parts = {
        name: made(StepTime, zip(names(StepTime), value, strict=True)) if isinstance(value, list) else value
        for name, value in zip(names(Seconds), seconds, strict=True)
    }
    return made(
        Record,
        {
            "schema": shared["schema"],
            "keys": made(Keys, zip(names(Keys), keys, strict=True)),
            "attempt": attempt,
            "spec": made(RunSpec, {**shared["spec"].__dict__, "seed_block": block}),
            "title": shared["title"],
            "status": Status(status),
            "reason": reason,
            "metric": shared["metric"],
            "curve": made(Curve, zip(names(Curve), map(tuple, curve), strict=True)),
            "final": made(Final, zip(names(Final), final, strict=True)),
            "crossing": None if crossing is None else made(Axes, zip(names(Axes), crossing, strict=True)),
            "consumed": made(Axes, zip(names(Axes), consumed, strict=True)),
            "ledger": {},
            "seconds": made(Seconds, parts),
            "memory": made(Memory, zip(names(Memory), memory, strict=True)),
            "provenance": made(Provenance, {**shared["provenance"], **dict(zip(OWN, ran, strict=True)), "notes": ()}),
            "work": None,
            "reused": False,
        },
    )


def made(kind: type[T], content: Any) -> T:
    """An instance of a frozen dataclass without its validation, a hundred times faster."""
    instance = object.__new__(kind)
    instance.__dict__.update(content)
    return instance


def indexed(store: Store, progress: Told | None = None) -> tuple[list[Record], list[Problem]]:
    """The records of a store by way of its index, as :meth:`Index.records` gives them, and what could not be read."""
    index = Index(store)
    try:
        problems = index.refresh(progress)
        return index.records(), problems
    finally:
        index.close()


def curve_of(store: Store, record: Record) -> Curve:
    """The whole curve of a record that came from the index.

    Raises:
        StoreError: its file is gone or damaged.
    """
    path = store.folder / record.keys.run[:2] / record.name
    found: list[Record] = []
    problems: list[Problem] = []
    if entry_of(path) is not None:
        store.load(path, found, problems)
    if not found:
        raise StoreError(str(problems[0]) if problems else f"{path}: is gone")
    return found[0].curve
