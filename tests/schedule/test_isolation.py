"""One process per run: whatever a method does to it ends in a status with a sentence, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dummies import spec

from curvebench.errors import CurvebenchError
from curvebench.schedule import server
from curvebench.schedule.cores import available, partition
from curvebench.schedule.isolation import Isolation, Outcome
from curvebench.spec import Status


@pytest.fixture
def isolation() -> Iterator[Isolation]:
    pool = Isolation("dummies:work", server.preload_for([]))
    yield pool
    pool.kill()


def one(isolation: Isolation, method: str, timeout: float = 30.0) -> Outcome:
    """Run one dummy to its end."""
    isolation.start(spec(method), available(), timeout)
    outcomes = isolation.wait(60.0)
    assert len(outcomes) == 1, "the process neither ended nor was killed"
    assert len(isolation) == 0
    return outcomes[0]


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether a process is dead (a zombie is) within some seconds."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_a_result_comes_back_whole(isolation: Isolation) -> None:
    outcome = one(isolation, "quick")
    assert outcome.status is None
    assert outcome.record is not None
    assert outcome.record["spec"] == spec("quick").to_json()
    assert outcome.record["curve"]["metric"] == [1.0, 0.1, 0.01]


def test_a_large_result_comes_back_whole(isolation: Isolation) -> None:
    record = one(isolation, "large").record
    assert record is not None
    assert record["provenance"]["notes"] == ["y" * 20_000_000]


@pytest.mark.parametrize(
    ("method", "status", "reason"),
    [
        ("raise", Status.CRASHED, r"ValueError: the dummy is broken \(dummies.py:\d+\)"),
        ("leave", Status.CRASHED, r"SystemExit: I give up \(dummies.py:\d+\)"),
        ("memory", Status.OUT_OF_MEMORY, r"MemoryError: no room for 8 EiB \(dummies.py:\d+\)"),
        ("exit", Status.CRASHED, "the process left with exit code 3 before it had a result"),
        ("exit255", Status.CRASHED, "the process left with exit code 255 before it had a result"),
        ("kill", Status.CRASHED, "the process died of SIGKILL"),
        ("segfault", Status.CRASHED, "the process died of SIGSEGV"),
        ("odd", Status.CRASHED, r"TypeError: Object of type object is not JSON serializable .*"),
        ("unknown", Status.CRASHED, r"KeyError: 'unknown' .*"),
    ],
)
def test_every_death_has_a_sentence(isolation: Isolation, method: str, status: Status, reason: str) -> None:
    outcome = one(isolation, method)
    assert outcome.record is None
    assert outcome.status is status
    assert not outcome.lost
    assert pytest.approx(0, abs=20) == outcome.seconds
    assert re.fullmatch(reason, outcome.reason)


def test_a_kill_by_the_kernel_is_out_of_memory(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter([4, 5])
    monkeypatch.setattr("curvebench.schedule.isolation._oom_kills", lambda: next(counter))
    outcome = one(isolation, "kill")
    assert (outcome.status, outcome.reason) == (
        Status.OUT_OF_MEMORY,
        "the kernel killed the process for want of memory",
    )


@pytest.mark.parametrize("method", ["hang", "stubborn", "hold"])
def test_a_timeout_kills(isolation: Isolation, method: str) -> None:
    outcome = one(isolation, method, timeout=0.3)
    assert outcome.status is Status.TIMEOUT
    assert outcome.reason == "killed: it had not ended after 0.3 s of wall time (--timeout)"
    assert outcome.seconds < 10


@pytest.mark.parametrize("method", ["family", "family-hang"])
def test_what_a_method_started_ends_with_it(
    isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("DUMMY_MARKS", str(tmp_path / "pid"))
    outcome = one(isolation, method, timeout=2.0)
    assert outcome.status is (Status.TIMEOUT if method.endswith("hang") else None)
    assert gone(int((tmp_path / "pid").read_text()))


def test_output_never_blocks_and_its_end_is_kept(isolation: Isolation, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = one(isolation, "print")
    assert outcome.record is not None
    assert outcome.output.endswith("xxx\nthe last line\n")
    assert len(outcome.output) <= 4096
    assert capfd.readouterr() == ("", ""), "what a method prints must not mix with ours"


def test_a_traceback_is_in_the_output(isolation: Isolation) -> None:
    outcome = one(isolation, "raise")
    assert "Traceback" in outcome.output
    assert "the dummy is broken" in outcome.output


def test_a_method_may_close_its_streams(isolation: Isolation) -> None:
    assert one(isolation, "closed").record is not None


def test_a_missing_worker_is_a_sentence(isolation: Isolation) -> None:
    isolation.worker = "dummies:no_such"
    outcome = one(isolation, "quick")
    assert outcome.status is Status.CRASHED
    assert outcome.reason.startswith("AttributeError: module 'dummies' has no attribute 'no_such'")


def test_a_run_lost_with_the_server_is_told_apart(
    isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUMMY_MARKS", str(tmp_path / "mark"))
    lost = one(isolation, "server")
    assert lost.lost
    again = one(isolation, "server")
    assert not again.lost
    assert again.record is not None


def test_a_child_is_pinned_before_it_works(isolation: Isolation) -> None:
    core = available()[-1]
    isolation.start(spec("cores"), (core,), 30.0)
    record = isolation.wait(30.0)[0].record
    assert record is not None
    note = json.loads(record["provenance"]["notes"][0])
    assert note["cores"] == [core]
    assert note["omp"] == "1"


def test_a_child_sees_the_environment_of_now(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    one(isolation, "quick")  # the server stands before the variable does
    monkeypatch.setenv("DUMMY_VARIABLE", "late")
    record = one(isolation, "variable").record
    assert record is not None
    assert record["provenance"]["notes"] == ["late"]


def test_the_server_gets_its_environment_before_it_starts() -> None:
    pool = Isolation("dummies:work", server.preload_for([]), {"DUMMY_VARIABLE": "early"})
    record = one(pool, "variable").record
    assert record is not None
    assert record["provenance"]["notes"] == ["early"]
    assert "DUMMY_VARIABLE" not in os.environ
    assert b"DUMMY_VARIABLE=early" in Path(f"/proc/{server.pid()}/environ").read_bytes().split(b"\0")


def test_kill_ends_everything(isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_MARKS", str(tmp_path / "pid"))
    isolation.start(spec("family-hang"), available(), 100.0)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        isolation.wait(0.01)
    isolation.kill()
    assert len(isolation) == 0
    assert gone(int((tmp_path / "pid").read_text()))


def test_starting_a_run_is_cheap(isolation: Isolation) -> None:
    one(isolation, "quick")
    began = time.monotonic()
    for _ in range(20):
        one(isolation, "quick")
    assert (time.monotonic() - began) / 20 < 0.25, "an isolated run of 10 ms; 0.02 s where nothing else runs"


def test_cores_are_disjoint_and_equal() -> None:
    assert partition((0, 1, 2, 3, 6), 2) == [(0, 1), (2, 3)]
    assert partition((4, 5), 1) == [(4, 5)]


@pytest.mark.parametrize(("jobs", "sentence"), [(0, "must be at least 1"), (3, "must be at most 2")])
def test_more_jobs_than_cores_are_refused(jobs: int, sentence: str) -> None:
    with pytest.raises(CurvebenchError, match=f"--jobs {jobs}: {sentence}"):
        partition((0, 1), jobs)
