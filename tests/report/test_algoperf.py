"""AlgoPerf's logs: its published scores, and small logs in its layout whose score is computed by hand."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from curvebench.cli.main import cli
from curvebench.errors import StoreError
from curvebench.report import algoperf
from curvebench.statistics.algoperf import scores

GOLDEN = Path(__file__).parents[1] / "golden" / "algoperf"
HEADER = "accumulated_submission_time,global_step,score,validation/ssim"


def write(
    root: Path, name: str, study: int, trial: int, rows: Sequence[tuple[float, float]], workload: str = "fastmri"
):
    """One trial: rows of (time, SSIM); the target is 0.723653."""
    folder = root / name / f"study_{study}" / f"{workload}_jax" / f"trial_{trial}"
    folder.mkdir(parents=True)
    lines = [f"{time},{k},{time},{value}" for k, (time, value) in enumerate(rows)]
    folder.joinpath("eval_measurements.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def test_published_scores_are_reproduced() -> None:
    with open(GOLDEN / "leaderboard.csv", newline="") as stream:
        published = {row["submission"]: float(row["score_by_wallclock"]) for row in csv.DictReader(stream)}
    found = algoperf.score(GOLDEN / "time_to_targets.csv")
    assert len(published) == 16
    assert found.version.name == "0.6"
    for name, plain in zip(found.submissions, found.plain, strict=True):
        assert plain == pytest.approx(published[name], abs=0.005), name


def test_real_logs_give_the_published_time() -> None:
    found = algoperf.score(GOLDEN / "logs", benchmark="0.6", draws=100)
    assert found.submissions == ("ademamix",)
    assert found.times[0, 0] == pytest.approx(1517.7321906089785), "median of three studies"
    assert found.plain[0] == pytest.approx(1 / 9), "alone it is the best on one workload of nine"


def test_a_score_by_hand(tmp_path: Path) -> None:
    """One workload of eight: a reaches at 100, b at 250; r = 2.5 lies on point 49.5 of 99."""
    write(tmp_path, "a", 0, 1, [(50.0, 0.1), (100.0, 0.8)])
    write(tmp_path, "b", 0, 1, [(250.0, 0.8)])
    write(tmp_path, "c", 0, 1, [(100.0, 0.1), (401.0, 0.8)])
    found = algoperf.score(tmp_path, draws=100)
    # b is within tau from the 51st of 100 points on: 49 whole intervals and half of one, of 99. c takes 4.01 times.
    assert found.plain.tolist() == pytest.approx([1 / 8, 49.5 / 99 / 8, 0.0])
    assert found.ours is not None
    assert found.ours.score.tolist() == pytest.approx(found.plain.tolist())


def test_the_best_trial_has_the_fewest_evaluations_or_the_least_time(tmp_path: Path) -> None:
    write(tmp_path, "a", 0, 1, [(900.0, 0.8)])
    write(tmp_path, "a", 0, 2, [(100.0, 0.1), (300.0, 0.8)])
    assert algoperf.score(tmp_path, "released", draws=100).times[0, 0] == 900.0
    assert algoperf.score(tmp_path, "written", draws=100).times[0, 0] == 300.0


def test_the_median_over_studies_counts_a_miss_as_infinite(tmp_path: Path) -> None:
    for study, reached in enumerate((True, False, True)):
        write(tmp_path, "a", study, 1, [(100.0 + study, 0.8 if reached else math.nan), (500.0, 0.1)])
        write(tmp_path, "b", study, 1, [(100.0 + study, 0.8 if study == 0 else 0.1), (500.0, 0.1)])
    found = algoperf.score(tmp_path, draws=200)
    assert found.times[:, 0].tolist() == [102.0, math.inf]
    assert found.plain.tolist() == pytest.approx([1 / 8, 0.0])
    # Ours: two of three, and one of three; AlgoPerf says all and nothing. The best median is 102.
    assert found.ours is not None
    assert found.ours.score.tolist() == pytest.approx([2 / 3 / 8, 1 / 3 / 8])
    assert (found.ours.low <= found.ours.score).all()
    assert (found.ours.score <= found.ours.high).all()


def test_a_missed_variant_loses_its_base_workload(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, name, 0, 1, [(100.0, 0.8)])
        write(tmp_path, name, 0, 1, [(100.0, 0.8 if name == "a" else 0.1)], "fastmri_tanh")
    found = algoperf.score(tmp_path, draws=100)
    assert found.version.name == "0.5"
    assert found.plain.tolist() == pytest.approx([1 / 8, 0.0])
    assert found.ours is not None
    assert found.ours.score.tolist() == pytest.approx([1 / 8, 0.0])


def test_rules_on_a_matrix() -> None:
    times = np.array([[1.0, 10.0, math.nan], [5.0, 9.0, 2.0]])
    base, held_out = ("x", "y"), {"y_variant": "y"}
    # x: 5 is more than 4 times 1. y: a misses the variant, so b alone is left there.
    assert scores(times, ["x", "y", "y_variant"], base, held_out).tolist() == pytest.approx([0.5, 0.5])
    assert scores(times[:, :2], ["x", "y"], ("x", "y", "z")).tolist() == pytest.approx(
        [(1 + 96.5 / 99 - 0) / 3, 1 / 3], abs=0.02
    )
    with pytest.raises(ValueError, match="need one column each"):
        scores(times, ["x"], ("x",))


def test_teams_and_folders_without_measurements(tmp_path: Path) -> None:
    write(tmp_path / "team", "a", 0, 1, [(100.0, 0.8)])
    write(tmp_path / "other", "a", 0, 1, [(200.0, 0.8)])
    (tmp_path / "team" / "a" / "study_0" / "fastmri_jax" / "trial_2").mkdir()
    (tmp_path / "team" / "a" / "study_0" / "mnist_jax").mkdir()
    found = algoperf.score(tmp_path, draws=100)
    assert found.submissions == ("other/a", "team/a")
    assert len(found.skipped) == 2


def test_other_places_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no AlgoPerf logs there"):
        algoperf.score(tmp_path)
    write(tmp_path, "a", 0, 1, [(100.0, 0.8)], "wmt")
    with pytest.raises(StoreError, match="has no column 'validation/bleu'"):
        algoperf.score(tmp_path)
    with pytest.raises(StoreError, match=r"--benchmark 9: must be one of 0\.5, 0\.6"):
        algoperf.score(tmp_path, benchmark="9")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StoreError, match="the first column must be 'submission'"):
        algoperf.score(tmp_path / "x.csv")


def test_the_verb(tmp_path: Path) -> None:
    write(tmp_path, "a", 0, 1, [(100.0, 0.8)])
    write(tmp_path, "b", 0, 1, [(250.0, 0.8)])
    result = CliRunner().invoke(cli, ["score", "--format", "algoperf", str(tmp_path), "--draws", "100"])
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split()[:3] == ["a", "0.1250", "0.125"]
    assert "fewest evaluations" in result.output
    done = CliRunner().invoke(cli, ["score", "--format", "algoperf", "--json", str(GOLDEN / "time_to_targets.csv")])
    assert json.loads(done.stdout)["submissions"][0]["submission"] == "schedule_free_adamw_v2"
    assert CliRunner().invoke(cli, ["score", "--format", "algoperf"]).exit_code == 2
