"""The largest batch that fits: the search, what a process's end says, and a real one under a small limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from curvebench import cards
from curvebench.cli.largest_batch import size
from curvebench.errors import CurvebenchError
from curvebench.procedures.largest_batch import Trial, enlarged, judged, largest_batch, search
from curvebench.schedule import server
from curvebench.schedule.isolation import Outcome
from curvebench.schedule.plan import specify
from curvebench.spec import Status
from curvebench.tasks import toy


@pytest.mark.parametrize("true", [0, 1, 2, 31, 32, 33, 1000, 4095, 4096, 4097])
@pytest.mark.parametrize("start", [1, 32, 5000])
def test_the_search_finds_the_largest_and_its_neighbour(true: int, start: int) -> None:
    found = search(lambda batch: Trial(batch, batch <= true, ""), start, most=1 << 20, precision=0.0)
    assert (found.batch, found.above) == (true, true + 1)
    assert len({t.batch for t in found.trials}) == len(found.trials) < 40, "no size is tried twice"


def test_a_coarse_search_is_within_its_precision_and_a_bound_ends_it() -> None:
    found = search(lambda batch: Trial(batch, batch <= 12_345, ""), 32, precision=0.05)
    assert found.above is not None
    assert found.batch <= 12_345 < found.above <= 1.05 * found.batch + 1
    everything = search(lambda batch: Trial(batch, True, ""), 32, most=100)
    assert (everything.batch, everything.above) == (100, None)


def outcome(record: Any, status: Status | None, reason: str) -> Outcome:
    spec = specify(cards.task("digits-cnn"), "sgd", cards.method("sgd"), "torch", "quick",
                   cards.task("digits-cnn").at("quick").budget, {}, "card")  # fmt: skip
    return Outcome(spec, (0,), record, status, reason, 1.0, "what it printed")


def test_only_want_of_memory_is_a_size_that_does_not_fit() -> None:
    assert judged(4, outcome({"fits": True, "reason": "2 steps"}, None, ""), True).fits
    for status, reason in ((Status.OUT_OF_MEMORY, "MemoryError"), (Status.CRASHED, "the process died of SIGABRT")):
        assert not judged(4, outcome(None, status, reason), True).fits
    with pytest.raises(CurvebenchError, match="batch 4: the process died of SIGABRT\nwhat it printed"):
        judged(4, outcome(None, Status.CRASHED, "the process died of SIGABRT"), False)
    with pytest.raises(CurvebenchError, match="TypeError"):
        judged(4, outcome(None, Status.CRASHED, "TypeError: a bug"), True)


def test_batches_beyond_the_training_set_repeat_samples() -> None:
    problem = toy.classifier()
    n = len(problem.train)
    order = enlarged(problem, 2 * n + 3).order()
    assert order.size == 2 * n + 3
    assert not order.full
    assert np.bincount(order[0], minlength=n).tolist() == [3] * 3 + [2] * (n - 3)
    assert order[1][0] == 3


@pytest.mark.parametrize(("text", "expected"), [("512MiB", 2**29), ("2GB", 2 * 10**9), ("1.5k", 1500), ("77", 77)])
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1MiB", "much", "3 parsecs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(CurvebenchError, match="must be a size such as 512MiB"):
        size(text)


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_small_limit_is_found_in_processes_of_their_own() -> None:
    spec = outcome(None, None, "").spec
    with pytest.raises(CurvebenchError, match="--memory 0: must be a positive number of bytes"):
        largest_batch(spec, 0)
    try:
        found = largest_batch(spec, 100 << 20, most=1 << 15, precision=1.0)
    finally:
        server.stop()
    assert found.limit == 100 << 20
    assert 32 <= found.batch < 1 << 15
    assert found.above is not None
    assert any("memory" in t.reason or "died" in t.reason for t in found.trials if not t.fits)
