"""Targets: the procedure on a toy, its refusals, and that cards state what the procedure found."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from curvebench import cards
from curvebench.cli.main import cli
from curvebench.errors import CurvebenchError
from curvebench.procedures import targets
from curvebench.spec import Status

ROOT = Path(__file__).resolve().parents[2]
STORED = sorted((ROOT / "results" / "targets").glob("*.json"))
RECORDS = sorted((ROOT / "results" / "targets" / "records").glob("*.jsonl"))


def record(spec: Any, metric: float | None, status: Status = Status.BUDGET) -> Any:
    """What the procedure reads of a record."""
    return SimpleNamespace(
        spec=spec, status=status, final=SimpleNamespace(metric=metric), keys=SimpleNamespace(run=spec.id),
        seconds=SimpleNamespace(total=1.0), crossing=None,
        consumed=SimpleNamespace(oracle_calls=10, step=5, gradient_equivalents=5.0),
    )  # fmt: skip


def toy(metrics: dict[str, list[float | None]]) -> tuple[targets.Plan, dict[str, Any]]:
    found = targets.plan("rosenbrock", "quick", 2, 3, tuple(metrics))
    records = {}
    for pool in found.pools:
        for spec, metric in zip(pool.specs, metrics[pool.method.name], strict=True):
            records[spec.id] = record(spec, metric, Status.BUDGET if metric is not None else Status.DIVERGED)
    return found, records


def test_the_best_trial_of_the_best_baseline_is_rerun_on_seeds_that_nobody_uses() -> None:
    plan, records = toy({"momentum": [0.5, None], "adam": [0.4, 0.01]})
    best = targets.winner(plan, records)
    assert best["method"] == "adam"
    assert best["metric"] == 0.01
    runs = targets.held_out(plan, best)
    assert [run.seed_block for run in runs] == [2_000_000, 2_000_001, 2_000_002]
    assert all(dict(run.hyperparameters) == best["hyperparameters"] for run in runs)
    assert not {run.seed_block for run in runs} & {spec.seed_block for pool in plan.pools for spec in pool.specs}
    content = targets.conclude(plan, best, [record(r, m) for r, m in zip(runs, (0.031, 0.02, 0.5), strict=True)],
                               list(records.values()))  # fmt: skip
    assert content["target"] == 0.031
    assert content["held_out"]["runs"] == [run.id for run in runs]
    assert len(content["trials"]["runs"]) == 4


def test_a_gap_stops_where_rounding_begins() -> None:
    plan, records = toy({"adam": [1e-30, 1e-30]})
    best = targets.winner(plan, records)
    runs = [record(r, m) for r, m in zip(targets.held_out(plan, best), (1e-30, -1e-17, 1e-31), strict=True)]
    assert targets.conclude(plan, best, runs, [])["target"] == targets.FLOOR


@pytest.mark.parametrize(
    ("value", "direction", "expected"),
    [(0.01234, "min", 0.013), (0.012, "min", 0.012), (0.9561, "max", 0.95), (123.0, "min", 130.0), (0.0, "min", 0.0)],
)
def test_rounding_goes_to_the_easy_side(value: float, direction: str, expected: float) -> None:
    assert targets.rounded(value, direction) == expected


def test_what_cannot_give_a_target_is_refused() -> None:
    with pytest.raises(CurvebenchError, match="lbfgs is quasi-newton: targets come from first-order methods"):
        targets.plan("rosenbrock", "quick", 2, 3, ("lbfgs",))
    with pytest.raises(CurvebenchError, match="--seeds 0: must be at least 1"):
        targets.plan("rosenbrock", "quick", 2, 0)
    with pytest.raises(CurvebenchError, match="no scale 'paper'"):
        targets.plan("rosenbrock", "paper", 2, 3)
    plan, records = toy({"adam": [None, None]})
    with pytest.raises(CurvebenchError, match="no baseline ended with a finite gap on rosenbrock"):
        targets.winner(plan, records)
    plan, records = toy({"adam": [1.0, 1.0]})
    best = targets.winner(plan, records)
    ended = [record(r, None, Status.DIVERGED) for r in targets.held_out(plan, best)]
    with pytest.raises(CurvebenchError, match="adam ended on 0 of 3 held-out seeds of rosenbrock: no target"):
        targets.conclude(plan, best, ended, [])


@pytest.mark.parametrize("scale", ["quick", "standard"])
def test_a_target_is_put_on_the_card_with_the_file_it_came_from(tmp_path: Path, scale: str) -> None:
    card = tmp_path / "quadratic-aligned.toml"
    card.write_text(cards.path_of("tasks", "quadratic-aligned").read_text())
    before = cards.load_file("tasks", card)
    for target in (0.123, 0.5):  # the second time replaces the comment too
        targets.state(card, {"scale": scale, "target": target}, Path(f"quadratic-aligned-{scale}.json"))
    after = cards.load_file("tasks", card)
    assert after.at(scale).target == 0.5  # type: ignore[attr-defined]
    other = {"quick": "standard", "standard": "quick"}[scale]
    assert after.at(other) == before.at(other)  # type: ignore[attr-defined]
    assert card.read_text().count(f'target_source = "procedure: results/targets/quadratic-aligned-{scale}.json"') == 1
    card.write_text(card.read_text().replace("target = 0.5", ""))
    with pytest.raises(CurvebenchError, match=rf"no line 'target = ...' under \[scales.{scale}\]"):
        targets.state(card, {"scale": scale, "target": 1.0}, Path("x.json"))


def test_the_verb_runs_trials_and_held_out_runs_and_writes_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURVEBENCH_SMOKE", "1")
    arguments = ["targets", "rosenbrock", "--trials", "2", "--seeds", "1", "--baseline", "adam"]
    result = CliRunner().invoke(cli, [*arguments, "--records", str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "rosenbrock-quick.json").read_text())
    assert content["winner"]["method"] == "adam"
    assert len(content["trials"]["runs"]) == 2
    assert len(content["held_out"]["runs"]) == 1
    assert f"gap {content['target']:g}" in result.output
    stored = {path.name[:16] for path in (tmp_path / "runs").rglob("*.json")}
    assert {run["run"] for run in content["trials"]["runs"]} | set(content["held_out"]["runs"]) <= stored


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_card_states_the_target_that_was_found(path: Path) -> None:
    content = json.loads(path.read_text())
    card = cards.task(content["task"])
    assert card.at(content["scale"]).target == content["target"]
    assert content["metric"] == card.metric.name
    held = content["held_out"]
    value = max(held["median"], targets.FLOOR) if content["metric"] == "gap" else held["median"]
    assert targets.rounded(value, card.metric.direction) == content["target"]
    assert f"results/targets/{path.name}" in cards.path_of("tasks", card.name).read_text()


def test_every_target_says_what_set_it() -> None:
    """So that nobody takes a target that somebody wrote down for one that was measured."""
    found = {(name, scale): cards.task(name).target_source(scale)
             for name in cards.names("tasks") for scale in cards.task(name).scales}  # fmt: skip
    procedures = {key for key, said in found.items() if said.startswith("procedure: ")}
    assert {f"{task}-{scale}.json" for task, scale in procedures} == {path.name for path in STORED}
    for (task, scale), said in found.items():
        if said.startswith("procedure: "):
            assert said == f"procedure: results/targets/{task}-{scale}.json"
        elif said.startswith("optimum gap: "):
            assert cards.task(task).optimum is not None
        else:
            assert said.startswith(("literature: ", f"provisional: by hand; `curvebench targets {task} --scale"))
    shown = CliRunner().invoke(cli, ["show", "task", "sst-2-bert-tiny"]).output
    assert "provisional: by hand" in shown


def test_the_source_of_a_target_does_not_make_another_run() -> None:
    from dataclasses import replace

    card = cards.task("chebyshev-chain")
    quick = replace(card.scales["quick"], target_source="literature: a toy")
    assert replace(card, scales={**card.scales, "quick": quick}).digest == card.digest
    assert replace(card, scales={**card.scales, "quick": replace(quick, target=0.5)}).digest != card.digest


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_the_committed_records_are_those_behind_the_target(path: Path) -> None:
    from curvebench.store import Record

    content = json.loads((ROOT / "results" / "targets" / f"{path.stem}.json").read_text())
    records = {r.keys.run: r for line in path.read_text().splitlines() for r in [Record.from_json(json.loads(line))]}
    held = content["held_out"]
    assert [records[run].final.metric for run in held["runs"]] == held["metrics"]
    assert {run["run"] for run in content["trials"]["runs"]} | set(held["runs"]) == set(records)
    assert all(r.spec.budget.seconds is None for r in records.values())
