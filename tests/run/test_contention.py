"""Other processes on a run's cores, and a host that withholds them, are seen; a quiet machine is not accused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curvebench.run import contention
from curvebench.run.contention import Contention, Shares


def stat(path: Path, busy: float, stolen: float) -> Path:
    """Kernel counters of this process's cores, in seconds summed over them."""
    tick, cores = os.sysconf("SC_CLK_TCK"), sorted(os.sched_getaffinity(0))
    rows = [
        f"cpu{c} {int(busy * tick / len(cores))} 0 0 999 0 0 0 {int(stolen * tick / len(cores))} 0 0" for c in cores
    ]
    path.write_text("\n".join(["cpu 1 2 3", *rows, "intr 5"]) + "\n")
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"wall": 100.0, "own": 1.0}
    monkeypatch.setattr(contention.time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(contention.os, "times", lambda: os.times_result((now["own"], 0.0, 0.0, 0.0, 0.0)))
    return now


def test_what_others_used_is_what_was_used_less_ones_own(tmp_path: Path, clock: dict[str, float]) -> None:
    cores = len(os.sched_getaffinity(0))
    watch = Contention(stat(tmp_path / "stat", 50.0, 0.0))
    clock["wall"] += 10.0
    clock["own"] += 6.0
    stat(tmp_path / "stat", 50.0 + 6.0 + 2.0 * cores, 1.0 * cores)
    shares = watch.read()
    assert shares.others == pytest.approx(0.2, abs=0.01)
    assert shares.steal == pytest.approx(0.1, abs=0.01)
    assert shares.busy == "other processes used 20% of its cores and the host withheld 10% of its cores"


def test_a_quiet_machine_is_not_accused(tmp_path: Path, clock: dict[str, float]) -> None:
    watch = Contention(stat(tmp_path / "stat", 50.0, 3.0))
    clock["wall"] += 10.0
    clock["own"] += 6.0
    stat(tmp_path / "stat", 56.0, 3.0)
    assert watch.read().busy is None


def test_too_short_a_run_says_nothing(tmp_path: Path, clock: dict[str, float]) -> None:
    watch = Contention(stat(tmp_path / "stat", 50.0, 0.0))
    clock["wall"] += 0.1
    assert watch.read() == Shares(None, None)


@pytest.mark.parametrize("text", ["", "cpu 1 2\n", "cpu0 1\n"])
def test_another_kernel_is_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    assert Contention(tmp_path / "stat").read() == Shares(None, None)
    assert Contention(tmp_path / "absent").read() == Shares(None, None)
