"""Scores of records: censored, with divergence at risk, tuning repeated where pools allow it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import make, quick_study

from curvebench.cli.main import cli
from curvebench.errors import StoreError
from curvebench.report.scoring import profile
from curvebench.store import Record, Store
from curvebench.types import Json


def test_the_fastest_everywhere_scores_one() -> None:
    records = [make(m, seed=s, rate=r) for m, r in (("adam", 0.05), ("sgd", 0.02)) for s in range(4)]
    found = profile(records, "step", draws=200)
    assert found.methods == (("adam", "torch", "Adam"), ("sgd", "torch", "SGD"))
    assert found.scores.score[0] == pytest.approx(1.0, abs=0.05)
    assert 0.2 < found.scores.score[1] < 0.9
    assert found.seeds == 4
    assert found.tasks == ("least-squares",)


def test_a_diverged_run_is_at_risk_for_ever() -> None:
    records = [make("adam", seed=s) for s in range(3)]
    records += [make("sgd", seed=s) for s in range(2)]
    records.append(make("sgd", seed=2, status="diverged", values=[1.0, 9.0, None]))
    found = profile(records, "step", draws=100)
    assert found.scores.band.rho[1].max() == pytest.approx(2 / 3)


def test_excluded_runs_are_absent_and_said_so() -> None:
    records = quick_study()
    found = profile(records, "oracle_calls", draws=100)
    lbfgs = [k for k, m in enumerate(found.methods) if m[0] == "lbfgs"]
    assert max(found.scores.score[lbfgs]) <= 2 / 3 + 1e-9, "one of three tasks is unsupported"
    assert any("2 of 48 cells have no run" in note for note in found.notes)


def test_seconds_of_two_machines_are_refused() -> None:
    records = [make("adam", seed=0), make("adam", seed=1, keys__machine="cd" * 32)]
    with pytest.raises(StoreError, match="seconds cannot be compared: the runs were measured on 2 different machines"):
        profile(records, "seconds")
    assert profile(records, "step", draws=100).seeds == 2
    with pytest.raises(StoreError, match="--axis hours: must be one of"):
        profile(records, "hours")
    with pytest.raises(StoreError, match="nothing to score"):
        profile([make(target=None)], "step")


def pool(crossings: list[int | None]) -> Json:
    runs = [
        {"run": "0" * 16, "status": "budget", "metric": 0.1 * k, "crossing": None if c is None else {"step": c}}
        for k, c in enumerate(crossings)
    ]
    return {"pool": "p", "trials": len(runs), "hyperparameters": {"lr": 0.1}, "runs": runs}


def test_tuning_is_repeated_where_the_pool_says_where_it_crossed() -> None:
    records = [make(m, seed=s, noise=0.0) for m in ("adam", "sgd") for s in range(6)]

    def lucky(record: Record) -> Json | None:
        return pool([100, 400, 400, None]) if record.spec.method == "sgd" else pool([100, 100, 100, 100])

    fixed = profile(records, "step", draws=400, fixed_tasks=True)
    unsure = profile(records, "step", lucky, draws=400, fixed_tasks=True)
    assert fixed.scores.score == pytest.approx(unsure.scores.score), "the winner's own runs are what is scored"
    assert unsure.scores.low[1] < fixed.scores.low[1] - 0.2, "sgd lives from one trial of four"
    assert unsure.scores.low[0] == pytest.approx(fixed.scores.low[0], abs=0.05)
    assert any("Tuning repeated in 2 cells" in note for note in unsure.notes)
    assert any("Tuning was not repeated" in note for note in fixed.notes)


def test_the_verb(tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    for record in quick_study():
        store.append(record)
    result = CliRunner().invoke(cli, ["score", str(store.folder), "--draws", "100"])
    assert result.exit_code == 0
    assert "oracle calls to target, 3 tasks" in result.output
    assert "2 seeds in the smallest cell: too few to compare (5 to claim, 10 to rank)." in result.output
    done = CliRunner().invoke(cli, ["score", str(store.folder), "--draws", "100", "--json", "--fixed-tasks"])
    report = json.loads(done.stdout)
    assert len(report["methods"]) == 16
    assert all(low <= row["censored"] <= high for row in report["methods"] for low, high in [row["interval"]])
