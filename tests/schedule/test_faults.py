"""Faults that are not crashes: a clock that steps backwards, and a study that ends with the table it would have had."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from dummies import record, spec

from curvebench.report import tables
from curvebench.schedule import Job, Options, jobs_of, run_study, unsettled
from curvebench.store import SCHEMA, Record, Store


def jobs(*methods: str, seeds: int = 1) -> list[Job]:
    return jobs_of([spec(method, block) for block in range(seeds) for method in methods], lambda _: "c" * 64)


def options(**more: object) -> Options:
    return Options(**{"worker": "dummies:work", "timeout": 30.0, **more})  # type: ignore[arg-type]


def test_a_clock_that_steps_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reading of the wall clock is an hour earlier than the one before; durations come from another clock."""
    store = Store(tmp_path / "records")
    hours = itertools.count()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600.0 * next(hours))
    both = jobs("exit", "quick", seeds=2)
    summary = run_study(both, store, options(budget=60.0))
    assert (summary.ran, summary.left) == (4, 0)
    found = store.read()
    assert len(found) == 4
    assert all(r.seconds.total is not None and 0.0 <= r.seconds.total < 60.0 for r in found)
    assert unsettled(both, store, options()) == []
    again = run_study(both, store, options(retry_failed=True))
    assert again.ran == 2, "the failures alone are tried again"
    assert sorted((r.spec.method, r.spec.seed_block, r.attempt) for r in store.read()) == [
        ("exit", 0, 1),
        ("exit", 0, 2),
        ("exit", 1, 1),
        ("exit", 1, 2),
        ("quick", 0, 1),
        ("quick", 1, 1),
    ]


def test_a_result_counts_though_its_clock_was_behind(tmp_path: Path) -> None:
    """A failure of today does not hide a result that a clock an hour slow has dated before it."""
    store = Store(tmp_path / "records")
    one = spec("quick")
    keys = {"run": one.id, "code": "c" * 64, "machine": jobs("quick")[0].keys.machine}
    for status, started in (("crashed", "2026-06-01T12:00:00Z"), ("reached", "2026-06-01T11:00:00Z")):
        content = record(one, command="", git=None, concurrent=1, started=started)
        store.append(Record.from_json({**content, "status": status, "schema": SCHEMA, "keys": keys, "attempt": 1}))
    found = store.find(keys["run"], keys["code"], keys["machine"])
    assert found is not None
    assert found.status.value == "reached"


def test_an_interrupted_study_has_the_table_of_an_undisturbed_one(tmp_path: Path) -> None:
    """Cut into pieces by budgets: what is printed, time and memory aside, is the same."""
    whole, pieces = Store(tmp_path / "whole"), Store(tmp_path / "pieces")
    all_ = jobs("quick-1", "quick-2", "slow", seeds=4)
    run_study(all_, whole, options())
    for _ in range(20):
        if not unsettled(all_, pieces, options()):
            break
        run_study(all_, pieces, options(budget=1.0))
    assert table(pieces) == table(whole)


def table(store: Store) -> list[list[tuple[object, ...]]]:
    """Every cell that is not time or memory."""
    aside = ("seconds", "step_ms", "memory_mib")
    return [
        [
            (row.row.method, row.row.framework, row.reached, tuple(row.statuses.items()),
             *(row.estimates[c] for c in one.columns if c not in aside))
            for row in one.rows
        ]
        for one in tables(store.read())
    ]  # fmt: skip
