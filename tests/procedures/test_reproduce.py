"""What the papers' measures ask for exists, and the command prints it without running anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from curvebench import cards
from curvebench.cli.main import cli
from curvebench.errors import CurvebenchError
from curvebench.procedures.reproduce import gather, measures, runs

PAPERS = cards.names("papers")


@pytest.mark.parametrize("name", [n for n in PAPERS if any(True for _ in measures(cards.paper(n)))])
def test_every_measure_names_a_task_a_scale_and_a_method_that_can_run_it(name: str) -> None:
    for measure, method in measures(cards.paper(name)):
        task, card = cards.task(measure.task), cards.method(method)
        task.at(measure.scale)
        assert set(card.needs) <= set(task.offers), f"{method} on {task.name}"
        card.resolve(dict(measure.hyperparameters) if method == measure.method else {})


def test_the_runs_of_a_paper_are_each_there_once_and_paired_by_seed_block() -> None:
    found = runs(cards.paper("deepzero"), seeds=2)
    assert len({spec.id for spec in found}) == len(found)
    blocks = {spec.seed_block for spec in found}
    assert blocks == {0, 1}
    pairs = {(spec.task, spec.method) for spec in found}
    assert {("cifar10-cnn730", "zo-cge"), ("cifar10-cnn730", "momentum"), ("cifar10-cnn730", "zo-sgd")} <= pairs
    assert len(found) == 2 * len(pairs)


def test_a_measures_hyperparameters_are_the_runs_own() -> None:
    found = [spec for spec in runs(cards.paper("mfac"), seeds=1) if spec.method == "mfac"]
    settings = [dict(spec.hyperparameters) for spec in found if spec.task == "mnli-bert-tiny"]
    assert (1e-4, 1e-6, 1024) in {(s["lr"], s["damping"], s["window"]) for s in settings}


def test_no_seeds_are_refused() -> None:
    with pytest.raises(CurvebenchError, match="--seeds 0: must be at least 1"):
        runs(cards.paper("mfac"), seeds=0)


def test_the_command_runs_nothing_by_itself(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["reproduce", "kaisa", "--records", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "not run (needs up to 128 GPUs)" in done.stdout
    assert "18.1" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_command_prints_json_csv_and_a_plan(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["reproduce", "kaisa", "--records", str(tmp_path), "--json"])
    assert {cell["verdict"] for cell in json.loads(done.stdout)["cells"]} == {"not run"}
    done = CliRunner().invoke(cli, ["reproduce", "kaisa", "--records", str(tmp_path), "--format", "csv"])
    assert done.stdout.startswith("paper,kind,id,")
    done = CliRunner().invoke(cli, ["reproduce", "kaisa", "--run", "--plan", "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 4, "kfac and momentum, two seed blocks"


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    assert "name the paper" in CliRunner().invoke(cli, ["reproduce", "--run"]).stderr
    assert "only with --run" in CliRunner().invoke(cli, ["reproduce", "kaisa", "--plan"]).stderr
    assert "did you mean 'kaisa'" in CliRunner().invoke(cli, ["reproduce", "kaiza"]).stderr
    assert gather([tmp_path / "nothing"]) == ([], [])
