"""A study that is interrupted, killed or not alone: nothing is lost, nothing is left running, nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from curvebench.report import tables
from curvebench.store import Store

HERE = Path(__file__).parent


def start(records: Path, method: str, runs: int, jobs: int = 1) -> subprocess.Popen[str]:
    """Start a study as a shell would: a process group of its own, so that a test can press Ctrl-C."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "dummy_study", str(records), method, str(runs), str(jobs)],
        env={**os.environ, "PYTHONPATH": path, "DUMMY_MARKS": str(records.with_name("marks"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def marks(records: Path) -> list[tuple[str, int]]:
    """Which run was started in which process, from the marks that ``marked`` dummies leave."""
    path = records.with_name("marks")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def wait_for(condition: object, within: float = 60.0) -> None:
    end = time.monotonic() + within
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def runs_a_dummy(pid: int) -> bool:
    """Whether a process is alive; a zombie, and another program under a used number, is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    return out, err


@pytest.mark.parametrize(
    ("number", "whole_group", "code", "jobs"),
    [
        (signal.SIGINT, True, 130, 1),
        (signal.SIGINT, False, 130, 2),
        (signal.SIGTERM, False, 143, 1),
        (signal.SIGTERM, True, 143, 2),
    ],
)
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals, whole_group: bool, code: int, jobs: int
) -> None:
    if jobs > len(os.sched_getaffinity(0)):
        pytest.skip("this machine has one core")
    records = tmp_path / "records"
    store = Store(records)
    process = start(records, "slow", 8, jobs)
    wait_for(lambda: len(store.entries()) >= 2)
    time.sleep(0.1)  # in the middle of a run
    (os.killpg if whole_group else os.kill)(process.pid, number)
    began = time.monotonic()
    _, err = finish(process)
    assert time.monotonic() - began < 5.0
    assert process.returncode == code
    stored = len(store.read())
    assert 2 <= stored < 8
    last = err.strip().splitlines()[-1]
    assert last == f"stopped: {stored} of 8 runs are stored; run the same command again to go on"
    assert "Traceback" not in err
    assert not (records / ".running").exists(), "a lock was left"

    again = start(records, "slow", 8, jobs)
    out, _ = finish(again)
    assert again.returncode == 0
    assert out == f"8 runs, {stored} stored before, {8 - stored} done\n"
    assert sorted(r.spec.seed_block for r in store.read()) == list(range(8))


def test_a_signal_kills_the_running_method(tmp_path: Path) -> None:
    records = tmp_path / "records"
    process = start(records, "markedhang", 1)
    wait_for(lambda: marks(records))
    os.kill(process.pid, signal.SIGINT)
    finish(process)
    assert process.returncode == 130
    assert not runs_a_dummy(marks(records)[0][1])


def test_a_second_signal_does_not_hurt(tmp_path: Path) -> None:
    records = tmp_path / "records"
    process = start(records, "slow", 8)
    wait_for(lambda: Store(records).entries())
    for _ in range(5):
        os.kill(process.pid, signal.SIGINT)
    _, err = finish(process)
    assert process.returncode == 130
    assert "runs are stored; run the same command again to go on" in err


def test_a_signal_before_the_first_run_stops_too(tmp_path: Path) -> None:
    """While the fork server still imports."""
    records = tmp_path / "records"
    process = start(records, "slow", 3)
    wait_for(lambda: (records / ".running").exists())
    os.kill(process.pid, signal.SIGINT)
    _, err = finish(process)
    assert process.returncode == 130
    assert "stopped: 0 of 3 runs are stored" in err


def began_or_ended(process: subprocess.Popen[str], records: Path, before: int) -> bool:
    return len(marks(records)) > before or process.poll() is not None


def killed_at_random(records: Path, runs: int, kills: int, chance: random.Random) -> int:
    """Run a study, killing it with SIGKILL again and again at random moments; return how often it was hit at work."""
    at_work = 0
    for _ in range(kills):
        before = len(marks(records))
        process = start(records, "marked", runs)
        if chance.random() < 0.8:  # else anywhere, imports included
            wait_for(partial(began_or_ended, process, records, before))
            time.sleep(chance.uniform(0.0, 0.03 * runs / kills * 1.5))
        else:
            time.sleep(chance.uniform(0.0, 1.5))
        at_work += process.poll() is None
        process.kill()
        finish(process)
        wait_for(lambda: not any(runs_a_dummy(pid) for _, pid in marks(records)), within=5.0)
    process = start(records, "marked", runs)
    finish(process)
    assert process.returncode == 0
    return at_work


def check_series(records: Path, runs: int, kills: int, chance: random.Random) -> None:
    at_work = killed_at_random(records, runs, kills, chance)
    assert at_work >= kills // 2, "the kills came too late to mean anything"
    found, problems = Store(records).scan()
    assert problems == []
    assert Counter(r.spec.seed_block for r in found) == dict.fromkeys(range(runs), 1)
    assert {r.attempt for r in found} == {1}
    assert len(marks(records)) <= runs + kills, "a run that was stored was run again"
    undisturbed = records.with_name("undisturbed")
    finish(start(undisturbed, "marked", runs))
    assert printed(records) == printed(undisturbed)


def printed(records: Path) -> list[tuple[object, ...]]:
    """The cells of the study's table that are neither time nor memory."""
    (one,) = tables(Store(records).read())
    shown = [c for c in one.columns if c not in ("seconds", "step_ms", "memory_mib")]
    return [(row.row.label, row.reached, row.statuses, *(row.estimates[c] for c in shown)) for row in one.rows]


def test_a_study_killed_again_and_again_completes_with_every_run_once(tmp_path: Path) -> None:
    check_series(tmp_path / "records", runs=40, kills=6, chance=random.Random())


@pytest.mark.nightly
@pytest.mark.parametrize("series", range(10))
def test_ten_series_of_two_hundred(tmp_path: Path, series: int) -> None:
    check_series(tmp_path / "records", runs=200, kills=30, chance=random.Random())


def test_two_studies_on_one_store_share_the_work(tmp_path: Path) -> None:
    records = tmp_path / "records"
    both = [start(records, "marked", 30) for _ in range(2)]
    outs = [finish(process)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    found, problems = Store(records).scan()
    assert problems == []
    assert Counter(r.spec.seed_block for r in found) == dict.fromkeys(range(30), 1)
    assert len(marks(records)) == 30
    counts = [int(out.split(", ")[2].split()[0]) for out in outs]
    assert sum(counts) == 30
    assert not (records / ".running").exists()


def test_a_killed_study_leaves_no_claim_behind(tmp_path: Path) -> None:
    records = tmp_path / "records"
    first = start(records, "markedhang", 1)
    wait_for(lambda: marks(records))
    second = start(records, "quick", 1)
    assert finish(second)[0].startswith("1 runs, 0 stored before, 1 done")  # another run: not held up
    first.kill()
    finish(first)
    third = start(records, "markedhang", 1)
    wait_for(lambda: len(marks(records)) == 2)
    os.kill(third.pid, signal.SIGTERM)
    finish(third)
    assert third.returncode == 143


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where a folder is needed")
    process = start(tmp_path / "records", "quick", 2)
    _, err = finish(process)
    assert process.returncode == 2
    assert len(err.strip().splitlines()) == 1
    assert str(tmp_path / "records") in err
