"""A study under a budget: the order, what fits, what may be concluded, and that it stops on time and goes on."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from dummies import record, spec

from curvebench import cards
from curvebench.cli.bench import carry_out, sentence
from curvebench.errors import CurvebenchError
from curvebench.schedule import Job, Options, Summary, estimate, jobs_of, run_study, unsettled
from curvebench.schedule.budget import (
    Prospect,
    by_information,
    complete_blocks,
    fitting,
    prospects,
    seconds_of,
    spread,
)
from curvebench.statistics.power import detectable
from curvebench.store import SCHEMA, Record, Store


def jobs(methods: tuple[str, ...], tasks: tuple[str, ...], seeds: int) -> list[Job]:
    specs = [spec(m, block, task) for block in range(seeds) for task in tasks for m in methods]
    return jobs_of(specs, lambda _: "c" * 64)


def cost(all_: list[Job], **seconds: float) -> dict[str, float]:
    return {job.spec.id: seconds[job.spec.task] for job in all_}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5min", 90.0), ("2 h", 7200.0), ("3m", 180.0)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-3s", "3 weeks"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(CurvebenchError, match="must be a positive time such as 90s, 30min or 2h"):
        seconds_of(text)


def test_a_comparison_exists_early() -> None:
    all_ = jobs(("a", "b", "c"), ("cheap", "dear"), 6)
    order = by_information(all_, all_, cost(all_, cheap=1.0, dear=10.0))
    assert sorted(j.keys.run for j in order) == sorted(j.keys.run for j in all_)
    blocks = [(j.spec.task, j.spec.seed_block) for j in order]
    for start in range(0, len(blocks), 3):
        assert len(set(blocks[start : start + 3])) == 1, "all methods of a block run together"
    assert blocks[:9] == [("cheap", 0)] * 3 + [("cheap", 1)] * 3 + [("cheap", 2)] * 3, "three seeds, to look, first"
    dear = [k for k, place in enumerate(blocks) if place[0] == "dear"]
    assert dear[0] < blocks.index(("cheap", 5)), "more seeds of the cheap task come to tell less than the dear one"


def test_what_is_stored_counts() -> None:
    all_ = jobs(("a", "b"), ("x", "y"), 4)
    todo = [j for j in all_ if not (j.spec.task == "x" and j.spec.seed_block < 3)]
    assert complete_blocks(all_, [j.keys.run for j in todo]) == {"x": 3, "y": 0}
    order = by_information(all_, todo, cost(all_, x=1.0, y=1.0))
    assert order[0].spec.task == "y", "x has its three seeds"


def test_what_fits_and_what_it_tells() -> None:
    all_ = jobs(("a", "b"), ("x",), 10)
    seconds = cost(all_, x=1.0)
    chosen = fitting(all_, seconds, 10.5)
    assert len(chosen) == 10
    assert len(fitting(all_, seconds, 10.5, jobs=2)) == 20
    (found,) = prospects(all_, all_, chosen, [])
    assert (found.task, found.seeds) == ("x", 5)
    assert "5 seeds: to claim a difference (10 to rank); detects 1." in found.sentence
    assert "standard deviations" in found.sentence
    assert "nothing may be concluded (3 seeds to look)" in Prospect("x", 1, math.nan).sentence
    assert f"a factor of {10 ** (detectable(0.1, 10)):.2f}" in Prospect("x", 10, 0.1).sentence


def stored(method: str, block: int, calls: int) -> Record:
    content = record(spec(method, block), command="", git=None, concurrent=1)
    content["crossing"] = {**content["crossing"], "oracle_calls": calls}
    keys = {"run": spec(method, block).id, "code": "0" * 64, "machine": "0" * 64}
    return Record.from_json({**content, "schema": SCHEMA, "keys": keys, "attempt": 1})


def test_the_spread_comes_from_earlier_records() -> None:
    earlier = [stored("a", k, 100 * 10**k) for k in range(3)] + [stored("b", k, 100) for k in range(3)]
    assert spread(earlier) == {"dummy": pytest.approx(1.0)}
    assert spread(earlier[:1]) == {}


def test_it_stops_on_time_and_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    all_ = jobs(("slow",), ("dummy",), 40)  # 0.3 s each
    began = time.monotonic()
    first = run_study(all_, store, Options(worker="dummies:work", timeout=30.0, budget=2.5))
    assert time.monotonic() - began < 6.0
    assert first.left > 0
    assert first.ran + first.left == 40
    assert len(store.read()) == first.ran
    assert not (store.folder / ".running").exists()
    rest = unsettled(all_, store, Options())
    assert len(rest) == first.left
    second = run_study(all_, store, Options(worker="dummies:work", timeout=30.0, budget=1.5))
    assert second.stored == first.ran
    assert {r.attempt for r in store.read()} == {1}


def test_a_run_that_cannot_end_in_time_is_not_started(tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    all_ = jobs(("quick",), ("dummy",), 3)
    expected = {all_[1].spec.id: 1000.0}
    summary = run_study(all_, store, Options(worker="dummies:work", timeout=30.0, budget=60.0, expected=expected))
    assert (summary.ran, summary.left) == (2, 1)


def planned_and_done(store: Store, seeds: int) -> tuple[float, Summary]:
    """Three seeds of a slow and a quick method, then a plan of the other seeds, then these."""
    options = Options(worker="dummies:work", timeout=30.0)
    all_ = jobs(("slow", "quick"), ("dummy",), seeds)
    carry_out(all_[:6], store, options)
    planned = estimate([job.spec for job in all_[6:]], store.read())
    assert planned.guessed == 0
    summary = carry_out(all_, store, options)
    assert summary.ran == 2 * (seeds - 3)
    return planned.total(), summary


def test_the_closing_line_says_what_the_plan_was_worth(tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    planned, summary = planned_and_done(store, 4)
    assert summary.planned == pytest.approx(planned)
    assert f"{summary.seconds / planned:.2f} of the " in sentence(cards.study("quick"), summary)
    for stored_run in store.read():
        assert stored_run.seconds.total is not None
        assert stored_run.seconds.total >= (0.3 if stored_run.spec.method == "slow" else 0.01), (
            "of the process, as it was seen"
        )


@pytest.mark.nightly
def test_the_plan_is_within_a_factor_of_one_and_a_half(tmp_path: Path) -> None:
    """Wall time: of a machine that others use at the same time it says nothing."""
    planned, summary = planned_and_done(Store(tmp_path / "records"), 13)
    assert 1 / 1.5 <= summary.seconds / planned <= 1.5
