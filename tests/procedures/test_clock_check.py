"""The clock's test of itself: it passes here, and it fails where a clock is wrong."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from curvebench.cli.main import cli
from curvebench.clock import Clock
from curvebench.procedures import clock_check


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_check, "TOLERANCE", 3.0)  # a machine under other tests oversleeps


def test_every_injected_delay_is_billed_and_no_evaluation_is() -> None:
    findings = list(clock_check.check_clock())
    assert [f.statement for f in findings if f.holds is not True] == []
    assert len(findings) == 6


def test_a_clock_that_does_not_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hasty(Clock):
        def stop(self) -> float:
            self._synchronise = lambda: None
            return super().stop()

    monkeypatch.setattr(clock_check, "Clock", Hasty)
    wrong = [f.statement for f in clock_check.check_clock() if f.holds is False]
    assert "work that a device finishes later is billed to its step" in wrong


def test_a_clock_that_bills_evaluations_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_check, "per_step", lambda work, look, wait: clock_check.DELAY)
    wrong = [f.statement for f in clock_check.check_clock() if f.holds is False]
    assert "an evaluation is not billed" in wrong


def test_doctor_prints_it_and_says_so_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(cli, ["doctor", "--clock", "--json"])
    assert done.exit_code == 0, done.output
    assert all(f["holds"] for f in json.loads(done.output))
    monkeypatch.setattr(clock_check, "per_step", lambda work, look, wait: 0.0)
    failed = CliRunner().invoke(cli, ["doctor", "--clock"])
    assert failed.exit_code == 1
    assert "FAILS" in failed.output
