"""Every (method, quick task) either ends within its cap or is unsupported, with the predicted cost in its sentence.

The procedure is the nightly test: every pair of every framework whose data is here runs by the harness, each in a
process of its own that is killed where it hangs. The ordinary tests take the kinds of pair that once overran.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from curvebench import cards
from curvebench.oracle import ledger as L
from curvebench.run.execute import execute
from curvebench.run.loop import StepInterrupted
from curvebench.schedule import Options, jobs_of, run_study
from curvebench.schedule.plan import expand
from curvebench.spec import RunSpec, Status
from curvebench.store import Store

CAP = 60.0
QUICK = [name for name in cards.names("tasks") if "quick" in cards.task(name).scales]


def pairs(task: str) -> Iterator[RunSpec]:
    """Every method in every framework that has it, with its card's hyperparameters, on one seed block."""
    study = replace(
        cards.study("quick"), tasks=(task,), methods=cards.names("methods"), seeds=1, hyperparameters="card"
    )
    yield from expand(study)


def test_the_enumeration_has_every_pair() -> None:
    found = {(spec.method, spec.framework) for spec in pairs("least-squares")}
    assert found == {
        (name, framework) for name in cards.names("methods") for framework in cards.method(name).frameworks
    }
    seconds = {name: cards.task(name).at("quick").seconds for name in QUICK}
    assert [name for name, limit in seconds.items() if (limit or 0) > 20] == [], "room under the cap of 60 s"


@pytest.mark.nightly
@pytest.mark.timeout(0)
@pytest.mark.parametrize("task", QUICK)
def test_every_pair_ends_or_is_refused(task: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    summary = run_study(jobs_of(list(pairs(task))), store, Options(timeout=2 * CAP))
    if all("is not on this machine" in record.reason for record in summary.records):
        pytest.skip(f"{task}: {summary.records[0].reason}")
    late = [
        f"{r.spec.method} {r.spec.framework}: {r.status}: {r.reason}"
        for r in summary.records
        if r.status in (Status.TIMEOUT, Status.OUT_OF_MEMORY) or (r.seconds.total or 0) - (r.seconds.setup or 0) > CAP
    ]
    assert not late, "\n".join(late)


@pytest.mark.parametrize(("name", "query"), [("hessian-free", "ggnvp"), ("levenberg-marquardt", "ggnvp")])
def test_a_step_of_many_products_is_stopped_between_two(name: str, query: str) -> None:
    """All of them are asked at one point, and once only a new point looked at the clock: a step took minutes."""
    running = tiny.engine(tiny.run_spec(name), tiny.mlp())
    whole = tiny.engine(tiny.run_spec(name), tiny.mlp())
    whole.step(0, math.inf)
    with pytest.raises(StepInterrupted, match="seconds"):
        running.step(0, time.perf_counter() - 1)
    column = L.COLUMN[query]
    assert running.counts()[column] <= whole.counts()[column]


def test_one_product_a_step_is_never_cut_off() -> None:
    running = tiny.engine(tiny.run_spec("adahessian"), tiny.mlp())
    running.step(0, time.perf_counter() - 1)
    assert running.counts()[L.COLUMN["hvp"]] == 1


@pytest.mark.nightly
def test_the_dear_ones_end_where_their_seconds_do() -> None:
    for name in ("hessian-free", "cma-es"):
        spec = replace(tiny.run_spec(name, task="digits-cnn", dtype="float32"), scale="quick")
        spec = replace(spec, budget=replace(spec.budget, steps=1000, seconds=0.5))
        record = execute(spec)
        assert record["status"] in ("budget", "unsupported", "reached"), record["reason"]
