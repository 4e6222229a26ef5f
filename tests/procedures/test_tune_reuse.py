"""Adding a method to a study tunes that method alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from curvebench import cards
from curvebench.cli.main import cli
from curvebench.procedures.tune import pools, standing
from curvebench.store import write_tuned


def test_a_pool_that_stands_is_not_tuned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = cards.study("quick")
    there = {p.method.name: p for p in pools(study, 2) if p.task.name == "least-squares"}
    adam = there["adam"]
    content = {
        "task": "least-squares",
        "method": "adam",
        "scale": "quick",
        "framework": adam.framework,
        "pool": adam.id,
        "trials": 2,
        "hyperparameters": {"lr": 0.1},
        "metric": 1.0,
        "label": "gap",
        "cost": {"seconds": 1.0, "oracle_calls": 10},
        "runs": [{"run": "0" * 16, "status": "budget", "metric": 1.0, "hyperparameters": {}}],
    }
    assert standing(adam, tmp_path) is None
    path = write_tuned(tmp_path, content, adam.method.twin)
    assert standing(adam, tmp_path) == path
    assert standing(there["sgd"], tmp_path) is None
    again = {p.method.name: p for p in pools(study, 4) if p.task.name == "least-squares"}
    assert standing(again["adam"], tmp_path) is None, "another number of trials is another pool"

    def refuse(*_: object) -> None:
        raise AssertionError("a trial was run")

    monkeypatch.setattr("curvebench.cli.bench.carry_out", refuse)
    arguments = ["tune", "quick", "--trials", "2", "--method", "adam", "--task", "least-squares", "--no-figures"]
    out = tmp_path / "tuned"
    path = write_tuned(out, content, adam.method.twin)
    before = path.read_bytes()
    done = CliRunner().invoke(cli, [*arguments, "--out", str(out), "--records", str(tmp_path / "pools")])
    assert done.exit_code == 0, done.output
    assert "(as it stood)" in done.stdout
    assert path.read_bytes() == before
    assert json.loads(path.read_text())["pool"] == adam.id
    assert (tmp_path / "tables" / "best-of-k" / "least-squares.md").exists()
