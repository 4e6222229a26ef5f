"""Which records may stand in one table, and which in one row of it.

A table compares runs of one task at one scale, device, number format, budget and learning-rate schedule. A row is one
method in one framework with one setting of its hyperparameters, one record per seed; where a card or the code changed
in between, only the runs of the newest version count, for a mean over two versions is a mean of nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from curvebench.cards import StudyCard
from curvebench.report.numbers import short
from curvebench.spec import FRAMEWORKS, RunSpec, Scalar, Status
from curvebench.store import Record

EXCLUDED = frozenset({Status.UNSUPPORTED, Status.OUT_OF_MEMORY, Status.CRASHED})
"""Statuses that enter no mean: they are counted under the table."""

FAMILIES = ("zeroth-order", "first-order", "quasi-newton", "second-order")

Setting: TypeAlias = tuple[str, str, str, str, int, float | None, float | None, str]
"""Task, scale, device, dtype, steps, seconds, gradient-equivalents, learning-rate schedule: what all rows share."""

Cell: TypeAlias = tuple[str, str, tuple[tuple[str, Scalar], ...]]
"""Method, framework, hyperparameters: what all records of a row share."""


@dataclass(frozen=True)
class Row:
    """One method in one framework with one setting: one record per seed block, sorted by it.

    Args:
        label: the method's title, with the hyperparameters that tell it from its namesakes in the table.
        left_out: records of older versions of the code or of a card, not used.
    """

    method: str
    label: str
    framework: str
    hyperparameters: tuple[tuple[str, Scalar], ...]
    records: tuple[Record, ...]
    left_out: int

    @property
    def included(self) -> tuple[Record, ...]:
        """The records that enter means."""
        return tuple(r for r in self.records if r.status not in EXCLUDED)


@dataclass(frozen=True)
class Group:
    """The rows of one table, in the registry's order, and the file name's stem.

    Args:
        left_out: records of older versions of the task's cards, not used.
    """

    setting: Setting
    stem: str
    rows: tuple[Row, ...]
    left_out: int = 0

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """All records of all rows."""
        return tuple(record for row in self.rows for record in row.records)

    @cached_property
    def newest(self) -> Record:
        """The record that started last: it has the latest titles and labels."""
        return latest(self.records)


def groups(records: Iterable[Record]) -> list[Group]:
    """Sort records into tables, by task, the largest table of a task first.

    The largest has the task's name as stem; others of the same task add what is different.
    """
    settings: defaultdict[Setting, list[Record]] = defaultdict(list)
    for record in records:
        settings[setting_of(record.spec)].append(record)
    by_task: defaultdict[str, list[Setting]] = defaultdict(list)
    for setting in settings:
        by_task[setting[0]].append(setting)
    found = []
    for task in sorted(by_task):
        main, *others = sorted(by_task[task], key=lambda s: (-len(settings[s]), str(s)))
        found.append(group(main, slug(task), settings[main]))
        for other in others:
            found.append(group(other, f"{slug(task)}-{difference(other, main)}", settings[other]))
    return found


def group(setting: Setting, stem: str, records: Sequence[Record]) -> Group:
    """One table of the newest version of the task's cards: another version is another task."""
    newest = shared_cards(latest(records))
    same = [r for r in records if shared_cards(r) == newest]
    return Group(setting, stem, rows(same), len(records) - len(same))


def latest(records: Sequence[Record]) -> Record:
    """The record that started last, of several the last by name."""
    started = max(r.provenance.started for r in records)  # names are made of parts: only where they decide
    return max((r for r in records if r.provenance.started == started), key=lambda r: r.name)


def shared_cards(record: Record) -> tuple[tuple[str, str], ...]:
    """The cards that all rows of a table share: the task's and the data set's."""
    return tuple(pair for pair in record.spec.cards if pair[0].startswith(("tasks/", "datasets/")))


def setting_of(spec: RunSpec) -> Setting:
    """What must be equal for two runs to be compared."""
    return (spec.task, spec.scale, spec.device, spec.dtype, spec.budget.steps, spec.budget.seconds,
            spec.budget.gradient_equivalents, spec.schedule)  # fmt: skip


def rows(records: Sequence[Record]) -> tuple[Row, ...]:
    """Sort the records of one table into rows: by family, name, hyperparameters and framework."""
    cells: defaultdict[Cell, list[Record]] = defaultdict(list)
    for record in records:
        cells[cell(record)].append(record)
    labels = row_labels(records)
    made = []
    for key, members in cells.items():
        method, framework, hyperparameters = key
        chosen, left_out = newest_version(members)
        made.append(Row(method, labels[key], framework, hyperparameters, chosen, left_out))
    return tuple(sorted(made, key=lambda row: (*registry_order(row.records[0]), row.label, framework_order(row))))


def newest_version(records: Sequence[Record]) -> tuple[tuple[Record, ...], int]:
    """One record per seed block, of the newest (cards, code) only; and how many older records were left out."""
    last = latest(records)
    version = (last.spec.cards, last.keys.code)
    same = [r for r in records if (r.spec.cards, r.keys.code) == version]
    seeds: dict[int, Record] = {}
    for record in sorted(same, key=precedence):
        seeds[record.spec.seed_block] = record  # the one that counts comes last
    return tuple(seeds[block] for block in sorted(seeds)), len(records) - len(same)


def precedence(record: Record) -> tuple[bool, bool, str, int]:
    """Which of several records of one run counts: this machine's, a result before a failure, the latest."""
    return (not record.reused, not record.retriable, record.provenance.started, record.attempt)


def row_labels(records: Iterable[Record]) -> dict[Cell, str]:
    """Titles of rows; settings of one method in one framework are told apart by what differs between them."""
    variants: defaultdict[tuple[str, str], dict[Cell, str]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: r.provenance.started):
        variants[record.spec.method, record.spec.framework][cell(record)] = record.title.method
    labels = {}
    for titles in variants.values():
        settings = [dict(key[2]) for key in titles]
        names = {name for given in settings for name in given}
        differing = {name for name in names if len({given.get(name) for given in settings}) > 1}
        for key, title in titles.items():
            tells = ", ".join(f"{name} = {setting(value)}" for name, value in key[2] if name in differing)
            labels[key] = f"{title} ({tells})" if tells else title
    return labels


def cell(record: Record) -> Cell:
    """The row of a record: method, framework, hyperparameters."""
    return (record.spec.method, record.spec.framework, record.spec.hyperparameters)


def setting(value: Scalar) -> str:
    """A hyperparameter's value in a label."""
    return short(value) if isinstance(value, float) else str(value)


def registry_order(record: Record) -> tuple[int, str]:
    """The order of methods everywhere: zeroth to second order, by name inside a family."""
    family = record.title.method_family
    return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), record.spec.method)


def framework_order(row: Row) -> int:
    """The order of frameworks: torch before jax."""
    return FRAMEWORKS.index(row.framework) if row.framework in FRAMEWORKS else len(FRAMEWORKS)


def difference(other: Setting, main: Setting) -> str:
    """What tells a second table of the same task from the first, for its file name."""
    names = ("{}", "{}", "{}", "{}", "{}-steps", "{}-seconds", "{}-gradients", "{}")
    parts = [
        name.format("no" if mine is None else short(mine) if isinstance(mine, (int, float)) else mine)
        for name, mine, theirs in zip(names, other, main, strict=True)
        if mine != theirs
    ]
    return slug("-".join(parts))


def slug(text: str) -> str:
    """A file name's stem that is safe everywhere."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "task"


def of_study(records: Iterable[Record], study: StudyCard) -> list[Record]:
    """The records that belong to a study. The same numbers may have been stored as ``card`` and serve as ``tuned``.

    So records of another source are dropped only where the method has some of the study's own.
    """
    members = [
        r
        for r in records
        if r.spec.task in study.tasks
        and r.spec.method in study.methods
        and r.spec.framework in study.frameworks
        and r.spec.scale == study.scale
        and 0 <= r.spec.seed_block < study.seeds
    ]
    own = {place(r) for r in members if r.spec.source == study.hyperparameters}
    return [r for r in members if r.spec.source == study.hyperparameters or place(r) not in own]


def place(record: Record) -> tuple[str, str, str]:
    """Task, method and framework."""
    return (record.spec.task, record.spec.method, record.spec.framework)
