"""A paper's report is a pure function of card and records: golden texts, and one test per rule of the look-up."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import make

from curvebench import cards
from curvebench.cards import PaperCard
from curvebench.report.paper_text import render, summary
from curvebench.report.papers import Judged, PaperReport, judge, to_json
from curvebench.store import Record

GOLDEN = Path(__file__).parent / "golden"


def measure(method: str, **changes: Any) -> dict[str, Any]:
    whole = {"task": "least-squares", "method": method, "scale": "paper", "quantity": "final", "factor": 100.0}
    return {**whole, **changes}


def paper(**changes: Any) -> PaperCard:
    """Four measured cells, one that is not run, one that is no number, and three claims."""
    content: dict[str, Any] = {
        "name": "example",
        "title": "An Example",
        "authors": "Nobody",
        "year": 2020,
        "url": "https://example.org",
        "not_found": "the appendix",
        "tables": [
            {
                "id": "table-1", "title": "Errors", "place": "Table 1", "page": 4, "source": "paper", "read": "notes 1",
                "unit": "error, %", "direction": "min", "n": 5, "setup": "ten epochs", "note": "means",
                "not_run": "needs 64 GPUs",
                "cells": [
                    {"id": "adam", "row": "Adam", "column": "small", "value": 10.0, "spread": 0.5,
                     "measure": measure("adam")},
                    {"id": "sgd", "row": "SGD", "column": "small", "value": 12.0, "spread": 0.1, "baseline": "adam",
                     "measure": measure("sgd")},
                    {"id": "momentum", "row": "SGD, momentum", "column": "small", "value": 8.0, "spread": 0.1,
                     "baseline": "adam", "measure": measure("momentum")},
                    {"id": "mezo", "row": "MeZO", "column": "small", "value": 10.0, "measure": measure("mezo")},
                    {"id": "nesterov", "row": "Nesterov", "column": "small", "text": "diverge",
                     "measure": measure("nesterov")},
                    {"id": "adam-large", "row": "Adam", "column": "large", "value": 3.25},
                ],
            },
            {
                "id": "table-2", "title": "Quoted", "place": "README", "source": "third-party", "by": "Somebody",
                "read": "notes 2", "unit": "accuracy, %", "direction": "max", "setup": "their own",
                "not_run": "needs ImageNet",
                "cells": [
                    {"id": "q-adam", "row": "Adam", "column": "A", "value": 90, "spread": 1},
                    {"id": "q-sgd", "row": "SGD", "column": "B", "value": 91},
                ],
            },
        ],
        "claims": [
            {
                "id": "better", "statement": "Adam errs less than SGD.", "place": "abstract", "read": "notes 3",
                "tested_by": "curvebench bench quick", "rule": "the difference is negative",
                "decision": {"kind": "less", "quantity": "error", "than": "sgd"}, "measure": measure("adam"),
                "evidence": [{"by": "Somebody", "note": "not with five seeds of ours", "records": "elsewhere"}],
            },
            {
                "id": "cheap", "statement": "MeZO's step costs at most twice SGD's.", "place": "Table 3",
                "read": "notes 3", "tested_by": "curvebench bench quick", "rule": "the ratio is at most 2",
                "decision": {"kind": "at-most", "quantity": "ratio of step times", "bound": 2.0},
                "measure": measure("adam", quantity="step-seconds", relative_to="sgd", factor=1.0, proxy="smaller"),
            },
            {
                "id": "scales", "statement": "It scales to 64 GPUs.", "place": "abstract", "read": "notes 3",
                "tested_by": "nothing", "rule": "none here",
                "decision": {"kind": "at-least", "quantity": "GPUs", "bound": 64.0}, "not_run": "needs 64 GPUs",
            },
        ],
    }  # fmt: skip
    found = cards.build("papers", content | changes, "example.toml")
    assert isinstance(found, PaperCard)
    return found


def run(method: str, seed: int, final: float, **changes: Any) -> Record:
    return make(method, seed=seed, values=[1.0, final], status="budget", spec__scale="paper", **changes)


def records() -> list[Record]:
    finals = {
        "adam": (0.100, 0.101, 0.099, 0.100, 0.100),  # reported 10 +- 0.5: reproduced
        "sgd": (0.150, 0.151, 0.149, 0.150, 0.150),  # reported 12, measured 15, and worse than Adam: partly
        "momentum": (0.150, 0.151, 0.149, 0.150, 0.150),  # reported 8 and better than Adam: not reproduced
        "mezo": (0.100, 0.101, 0.099, 0.100, 0.100),  # no spread, no margin
        "nesterov": (0.5, 0.5, 0.5, 0.5, 0.5),  # the paper's diverges
    }
    return [run(method, seed, value) for method, values in finals.items() for seed, value in enumerate(values)]


def only(report: PaperReport, name: str, framework: str | None = "torch") -> Judged:
    (found,) = [one for one in report.cells if one.cell.id == name and one.framework == framework]
    return found


def word(report: PaperReport, name: str, framework: str | None = "torch") -> str:
    return str(only(report, name, framework).verdict)


@pytest.mark.parametrize(
    ("form", "file"),
    [("markdown", "paper.md"), ("terminal", "paper.txt"), ("csv", "paper.csv"), ("latex", "paper.tex")],
)
def test_golden(form: str, file: str) -> None:
    assert render(judge(paper(), records()), form) == (GOLDEN / file).read_text(encoding="utf-8")


def test_each_word_where_it_belongs() -> None:
    report = judge(paper(), records())
    assert word(report, "adam") == "reproduced"
    assert word(report, "sgd") == "partly"
    assert word(report, "momentum") == "not reproduced"
    assert word(report, "mezo") == "not comparable (no spread, no margin)"
    assert word(report, "nesterov") == 'not comparable (the paper prints "diverge")'
    assert word(report, "adam-large", None) == "not run (needs 64 GPUs)"
    claims = {(one.claim.id, one.evidence): str(one.verdict) for one in report.claims}
    assert claims["better", None] == "reproduced"
    assert claims["cheap", None] == "consistent (proxy)"
    assert claims["scales", None] == "not run (needs 64 GPUs)"
    assert claims["better", "Somebody"].startswith("not run (needs records of adam and sgd on least-squares")


def test_without_records_every_cell_and_claim_says_what_it_needs() -> None:
    report = judge(paper(), [])
    assert set(report.counts) == {"not run"}
    assert all(one.verdict.why.startswith("needs ") for one in (*report.cells, *report.claims))
    assert "needs records of adam on least-squares, scale paper: curvebench reproduce example --run" in word(
        report, "adam", None
    )
    assert summary(report) == f"8 cells and 3 claims: {len(report.cells) + len(report.claims)} not run"


def test_every_shipped_paper_says_not_run_without_records() -> None:
    for name in cards.names("papers"):
        assert set(judge(cards.paper(name), []).counts) <= {"not run"}


def test_the_numbers_are_the_mean_and_the_90_per_cent_interval() -> None:
    found = only(judge(paper(), records()), "adam")
    assert found.measured is not None
    assert found.measured.mean == pytest.approx(10.0)
    assert found.measured.high is not None
    assert found.verdict.high == pytest.approx(found.measured.high - 10.0)
    assert found.reported == "10 ± 0.5"


def test_frameworks_are_judged_apart() -> None:
    jax = [run("adam", seed, 0.3 + 0.001 * seed, framework="jax") for seed in range(5)]
    report = judge(paper(), [*records(), *jax])
    assert word(report, "adam", "torch") == "reproduced"
    assert word(report, "adam", "jax") == "not reproduced"


def test_another_scale_or_task_is_not_taken() -> None:
    others = [make("adam", seed=s, values=[1.0, 0.1]) for s in range(5)]
    others += [run("adam", s, 0.1, task="other") for s in range(5)]
    assert judge(paper(), others).counts == {"not run": 12}


def test_a_run_that_diverged_has_no_number_and_is_counted() -> None:
    bad = run("adam", 5, 0.1)
    bad = replace(bad, status=type(bad.status)("diverged"))
    found = only(judge(paper(), [*records(), bad]), "adam")
    assert (found.absent, found.measured.n if found.measured else 0) == (1, 5)
    assert found.seen.endswith("(n = 5, 1 without)")


def test_settings_are_chosen_by_the_measure_then_tuned_then_most_seeds_never_by_result() -> None:
    other = [run("adam", s, 0.5, spec__hyperparameters={"lr": 0.2}) for s in range(2)]
    assert word(judge(paper(), [*records(), *other]), "adam") == "reproduced", "five seeds go before two"
    better = [run("adam", s, 0.1, spec__hyperparameters={"lr": 0.2}, spec__source="card") for s in range(7)]
    worse = [run("adam", s, 0.5) for s in range(2)]
    report = judge(paper(), [*better, *worse])
    assert only(report, "adam").measured.mean == pytest.approx(50.0)  # type: ignore[union-attr]
    content = paper().to_json()
    table = next(t for t in content["tables"] if t["id"] == "table-1")
    table["cells"][0]["measure"]["hyperparameters"] = {"lr": 0.2}
    fixed = cards.build("papers", _without_none(content), "example.toml")
    assert isinstance(fixed, PaperCard)
    assert only(judge(fixed, [*better, *worse]), "adam").measured.mean == pytest.approx(10.0)  # type: ignore[union-attr]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def test_times_of_two_machines_make_no_ratio() -> None:
    here = [run("adam", s, 0.1, step_seconds=1e-3) for s in range(3)]
    there = [run("sgd", s, 0.1, step_seconds=1e-3, keys__machine="cd" * 32) for s in range(3)]
    report = judge(paper(), [*here, *there])
    (found,) = [one for one in report.claims if one.claim.id == "cheap"]
    assert found.verdict.word == "not run"
    assert "3 records have no such number" in found.verdict.why


def test_a_ratio_of_step_times_is_taken_seed_block_by_seed_block() -> None:
    slow = [run("adam", s, 0.1, seconds__step={"median": 3e-3, "p10": 1e-3, "p90": 4e-3, "n": 9, "mean": 5e-3})
            for s in range(3)]  # fmt: skip
    base = [run("sgd", s, 0.1, seconds__step={"median": 1e-3, "p10": 1e-3, "p90": 1e-3, "n": 9, "mean": 1e-3})
            for s in range(3)]  # fmt: skip
    (found,) = [one for one in judge(paper(), [*slow, *base]).claims if one.claim.id == "cheap"]
    assert found.measured is not None
    assert found.measured.mean == pytest.approx(5.0), "the mean, which holds what is done rarely"
    assert str(found.verdict) == "inconsistent (proxy)"


def test_evidence_is_judged_by_its_own_records() -> None:
    against = [run("adam", s, 0.3 + 0.001 * s) for s in range(5)] + [run("sgd", s, 0.1) for s in range(5)]
    report = judge(paper(), records(), {"elsewhere": against})
    found = {one.evidence: one for one in report.claims if one.claim.id == "better"}
    assert str(found[None].verdict) == "reproduced"
    assert str(found["Somebody"].verdict) == "not reproduced"
    assert "evidence of Somebody: not with five seeds of ours" in render(report, "terminal")


def test_csv_and_json_have_every_cell_with_all_digits() -> None:
    report = judge(paper(), records())
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    content = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert len(rows) == len(content["cells"]) + len(content["claims"])
    adam = next(row for row in rows if row["id"] == "adam")
    assert float(adam["measured"]) == content["cells"][0]["measured"]
    assert content["cells"][0]["margin"] == 1.0
    assert content["counts"]["reproduced"] == 2


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 'html': must be one of terminal, markdown, csv, latex"):
        render(judge(paper(), []), "html")
