"""A night on made-up histories: what became worse is named, a part that fails does not stop the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from curvebench.procedures.nightly import Part, changes, figures, last_night, main, night, parts, summary, verdicts

BEFORE: dict[str, Any] = {
    "commit": "a" * 40,
    "figures": {"kernels.Kernel.peakmem_call(x)": 100.0, "kernels.Kernel.track_error(x)": 1e-4},
    "verdicts": {"p/1": "reproduced", "p/2": "not run"},
}


def after(**values: Any) -> dict[str, Any]:
    return {"date": "today", "commit": "b" * 40, "parts": [], **values}


def test_an_equal_night_has_no_changes() -> None:
    assert changes(after(figures=BEFORE["figures"], verdicts=BEFORE["verdicts"]), BEFORE) == []


def test_fatter_and_less_accurate_are_named_above_their_thresholds_only() -> None:
    figures_now = {"kernels.Kernel.peakmem_call(x)": 111.0, "kernels.Kernel.track_error(x)": 1.9e-4}
    assert [(c.kind, c.worse) for c in changes(after(figures=figures_now), BEFORE)] == [("fatter", True)]
    figures_now = {"kernels.Kernel.peakmem_call(x)": 109.0, "kernels.Kernel.track_error(x)": 2.1e-4}
    assert [(c.kind, c.worse) for c in changes(after(figures=figures_now), BEFORE)] == [("less accurate", True)]


def test_a_lost_claim_is_worse_and_a_new_one_is_not() -> None:
    seen = changes(after(verdicts={"p/1": "not reproduced", "p/2": "reproduced", "p/3": "not run"}), BEFORE)
    assert [(c.what, c.worse) for c in seen] == [("p/1", True), ("p/2", False)]


def test_the_regression_check_alone_judges_seconds() -> None:
    outcomes = [{"benchmark": name, "verdict": name} for name in ("slower", "faster", "no change", "too noisy")]
    seen = changes(after(regressions=outcomes), None)
    assert [(c.what, c.worse) for c in seen] == [("slower", True), ("faster", False)]


def test_a_part_that_fails_is_reported_and_the_rest_goes_on() -> None:
    def run(command: Sequence[str]) -> CompletedProcess[str]:
        if command[0] == "absent":
            raise FileNotFoundError("absent")
        return CompletedProcess(command, 3 if command[0] == "bad" else 0, "[1]", "why")

    todo = [Part("one", ("absent",)), Part("two", ("bad",)), Part("three", ("good",), keep=True)]
    found = night(todo, run)
    assert [part["code"] for part in found["parts"]] == [-1, 3, 0]
    assert found["three"] == [1]
    text = summary({**after(), **found}, None, [])
    assert "nothing became worse" in text
    assert "| two | ended with 3 |" in text
    assert "FileNotFoundError: absent" in text


def test_the_regression_check_needs_another_commit() -> None:
    names = [part.name for part in parts("b", "a")]
    assert "regressions" in names
    assert "regressions" not in [part.name for part in parts("b", None)]
    assert "regressions" not in [part.name for part in parts("b", "b")]


def test_asv_results_are_read_by_their_parameters() -> None:
    stored = {
        "result_columns": ["result", "params"],
        "results": {"a.track_x": [[1.0, None, float("nan")], [["p", "q", "r"]]], "a.time_y": [[2.0], []], "a.z": None},
    }
    assert figures(stored) == {"a.track_x(p)": 1.0, "a.time_y": 2.0}


def test_a_broken_file_of_the_history_is_passed_over(tmp_path: Path) -> None:
    assert last_night(tmp_path) is None
    (tmp_path / "2026-01-01.json").write_text(json.dumps(BEFORE))
    (tmp_path / "2026-01-02.json").write_text("{")
    assert last_night(tmp_path) == BEFORE


@pytest.mark.parametrize(("verdict", "code"), [("reproduced", 0), ("not reproduced", 1)])
def test_a_night_is_stored_and_its_exit_code_says_whether_something_became_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "2020-01-01.json").write_text(json.dumps(BEFORE))
    papers = [{"paper": "p", "cells": [{"id": "1", "verdict": verdict}]}]
    assert verdicts(papers) == {"p/1": verdict}

    def run(command: Sequence[str]) -> CompletedProcess[str]:
        out = "b" * 40 if command[0] == "git" else json.dumps(papers) if "reproduce" in command else "[]"
        return CompletedProcess(command, 0, out, "")

    assert main(folder, run) == code
    stored = last_night(folder)
    assert stored is not None
    assert stored["commit"] == "b" * 40
    assert stored["verdicts"] == {"p/1": verdict}
    assert ("became worse" in (folder / "summary.md").read_text()) or code == 0
