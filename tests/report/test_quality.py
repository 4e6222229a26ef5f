"""Curvature quality as tables and a heat map, and the join with stored runs."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from curvebench.cli.main import cli
from curvebench.errors import StoreError
from curvebench.report import quality
from curvebench.store import Record, Store
from curvebench.store.quality import MEASURES, read_quality, write_quality

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "records" / "reference"


def cell(name: str, block: int, checkpoint: str, truth: str, **measures: Any) -> dict[str, Any]:
    base = dict.fromkeys(MEASURES, 0.5 + block / 10)
    return {"approximation": name, "seed_block": block, "checkpoint": checkpoint, "step": 0, "loss": 1.0,
            "truth": truth, "damping": 1e-3, "lam": 0.1, "status": "measured", "reason": "", "calls": {},
            **base, **measures}  # fmt: skip


@pytest.fixture(scope="module")
def content() -> Any:
    names = {"identity": ("sgd", {}), "kfac-mc": ("adahessian", {"hessian_every": 7}), "blocks": (None, {})}
    cells = []
    for block in range(3):
        for checkpoint in ("init", "end"):
            for truth in ("ggn", "hessian"):
                cells += [
                    cell("identity", block, checkpoint, truth),
                    cell("blocks", block, checkpoint, truth, eff=None),
                ]
                none = cell("kfac-mc", block, checkpoint, truth, **dict.fromkeys(MEASURES))
                cells.append({**none, "status": "unsupported", "reason": "needs layer_statistics: so says the card"})
    return {
        "schema": 1, "task": "least-squares", "title": "least squares", "scale": "quick", "d": 3, "n": 7, "seeds": 3,
        "dampings": [1e-3], "trained_by": "lbfgs, 10 steps", "checkpoints": ["init", "end"],
        "approximations": [{"name": n, "title": n.upper(), "about": "x", "method": m, "options": o}
                           for n, (m, o) in names.items()],
        "cells": cells, "provenance": {"command": "curvebench quality"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    found = [r for r in Store(REFERENCE).read() if r.spec.task == "least-squares" and r.spec.framework == "torch"]
    assert {r.spec.method for r in found} >= {"sgd", "adahessian"}
    return found


def test_medians_per_checkpoint_and_the_three_kinds_of_join(content: Any, records: list[Record]) -> None:
    text = quality.render(content, records, "terminal", ("ggn",))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "0.60 / 0.60" in lines["IDENTITY"]  # the median of 0.5, 0.6, 0.7
    assert "no method" in lines["BLOCKS"]
    assert "- / -" in lines["BLOCKS"]
    assert "unsupported" in lines["KFAC-MC"]
    assert "no record" in lines["KFAC-MC"]  # the stored runs have another setting
    assert "  KFAC-MC: unsupported: needs layer_statistics: so says the card" in text
    assert "3 seed blocks (median), init / end of lbfgs, 10 steps; damping 0.001 tr(GGN)" in text


def test_the_join_takes_the_steps_and_seconds_of_the_tasks_own_table(content: Any, records: list[Record]) -> None:
    found = quality.speeds(content, records)["identity"]
    mine = [r for r in records if r.spec.method == "sgd"]
    assert found is not None
    assert found.n == len(mine)
    assert found.steps is not None
    assert found.steps.n == len(mine)
    other = [replace(r, spec=replace(r.spec, task="other")) for r in mine]
    assert quality.speeds(content, other)["identity"] is None
    assert quality.speeds(content, [])["identity"] is None


def test_csv_has_every_cell_and_json_the_summary(content: Any, records: list[Record]) -> None:
    rows = list(csv.DictReader(io.StringIO(quality.csv(content, records))))
    assert len(rows) == len(content["cells"])
    assert {row["eff"] for row in rows if row["approximation"] == "blocks"} == {""}
    found = quality.to_json(content, records)
    json.dumps(found, allow_nan=False)
    (row,) = [r for r in found["tables"][0]["rows"] if r["name"] == "identity"]
    assert row["eff"] == [0.6, 0.6]
    assert row["to_target"]["n"] > 0
    assert quality.render(content, records, "markdown").count("| approximation ") == 2  # both truths
    with pytest.raises(ValueError, match="format 'html': must be one of"):
        quality.render(content, records, "html")


def test_the_heat_map_has_a_cell_for_each_approximation_and_checkpoint(content: Any) -> None:
    figure = quality.heat_map([content, {**content, "title": "again"}])
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["IDENTITY", "KFAC-MC", "BLOCKS"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["init", "end"] * 2
    assert sum(t.get_text() == "0.60" for t in axes.texts) == 4
    with pytest.raises(ValueError, match="measure = 'colour'"):
        quality.heat_map([content], measure="colour")


def test_the_verb_prints_what_is_stored_and_draws(content: Any, tmp_path: Path) -> None:
    write_quality(tmp_path, content)
    arguments = ["quality", "--stored", "--out", str(tmp_path), "--records", str(tmp_path / "none")]
    done = CliRunner().invoke(cli, [*arguments, "--figure", str(tmp_path / "map.svg")])
    assert done.exit_code == 0, done.output
    assert "IDENTITY" in done.output
    assert (tmp_path / "map.svg").stat().st_size > 5_000
    assert json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)[0]["task"] == "least-squares"
    nothing = CliRunner().invoke(cli, ["quality", "--stored", "--out", str(tmp_path / "empty")])
    assert "nothing measured in" in nothing.output
    assert nothing.exit_code == 2


def test_the_verb_measures(tmp_path: Path) -> None:
    arguments = ["quality", "--task", "deep-linear", "--approximation", "kfac-type-2", "--seeds", "1", "--steps", "10",
                 "--out", str(tmp_path), "--records", str(tmp_path / "none")]  # fmt: skip
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "K-FAC, type-2" in done.output
    assert len(read_quality(tmp_path, "deep-linear")[0]["cells"]) == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "newer curvebench"),
        ({"d": "3"}, "d = '3': must be int"),
        ({"cells": [{"approximation": "identity"}]}, r"cells\[0\].seed_block: is missing"),
    ],
)
def test_what_is_no_such_file_is_refused(content: Any, tmp_path: Path, change: Any, words: str) -> None:
    (tmp_path / "least-squares.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(StoreError, match=words):
        read_quality(tmp_path)
