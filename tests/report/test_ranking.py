"""The order of methods: intervals, pairs, stability, and words that are refused to too few seeds."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from synthetic import make, quick_study

from curvebench.report import build
from curvebench.report.groups import groups
from curvebench.report.ranking import TaskRanking, markdown, pairs_csv, ranking, text
from curvebench.store import Record

ROOT = Path(__file__).parents[2]


def runs(
    seeds: int, methods: Sequence[tuple[str, float]] = (("adam", 0.05), ("sgd", 0.02), ("mezo", 0.004))
) -> list[Record]:
    return [make(method, seed=s, rate=rate) for method, rate in methods for s in range(seeds)]


def of(records: Sequence[Record], everything: Sequence[Record] = ()) -> TaskRanking:
    (group,) = groups(records)
    found = ranking(group, everything)
    assert found is not None
    return found


def test_methods_that_are_far_apart_have_sharp_ranks() -> None:
    found = of(runs(10))
    names = [row.method for row in found.rows]
    steps = next(axis for axis in found.axes if axis.name == "step")
    by_name = dict(zip(names, steps.ranking.rank.tolist(), strict=True))
    assert by_name == {"adam": 1, "sgd": 2, "mezo": 3}
    assert steps.ranking.low.tolist() == steps.ranking.high.tolist()
    assert steps.horizon == 500.0, "mezo missed at the budget"
    assert steps.between_seeds.tau == 1.0
    assert len(steps.claimed) == 3
    assert all(pair.larger for pair in steps.claimed)
    assert [axis.name for axis in found.axes][:4] == ["final", "step", "seconds", "oracle_calls"]


@pytest.mark.parametrize(
    ("seeds", "title", "refusal"),
    [
        (2, "too few to compare", "No difference is claimed with 2 seeds: that takes 5."),
        (3, "to look", "No difference is claimed with 3 seeds: that takes 5."),
        (5, "enough to claim a difference; 10 to rank", "No ranking is claimed with 5 seeds: that takes 10."),
        (10, "Ranking on least squares (10 seeds)", None),
    ],
)
def test_the_stronger_word_is_refused_to_the_weaker_n(seeds: int, title: str, refusal: str | None) -> None:
    printed = markdown(of(runs(seeds)))
    assert title in printed.splitlines()[0]
    assert ("Ranking" in printed) == (seeds >= 10)
    assert ("pairs differ" in printed) == (seeds >= 5)
    if refusal:
        assert refusal in printed


def test_everything_that_belongs_under_an_order_is_there() -> None:
    printed = text(of(runs(5)))
    wanted = [
        "detectable with 5 seeds",
        "Kendall's tau between seeds",
        "half of the budget",
        "ranks by steps to target",
    ]
    for words in [*wanted, "probability of improvement", "beats next"]:
        assert words in printed
    assert "All runs had 2 threads: nothing is known about other numbers." in printed


def test_a_row_that_diverged_has_a_rate_and_no_final_rank() -> None:
    records = [*runs(4), *(make("momentum", seed=s) for s in range(3))]
    records.append(make("momentum", seed=3, status="diverged", values=[1.0, 50.0, None]))
    found = of(records)
    place = [row.method for row in found.rows].index("momentum")
    final = found.axes[0]
    assert final.ranking.rank[place] == 0
    steps = next(axis for axis in found.axes if axis.name == "step")
    assert steps.ranking.rank[place] > 0
    assert steps.values[3, place] == steps.horizon, "at risk to the end"
    assert "0.25 [0.01, 0.81]" in text(found)


def test_orders_at_other_numbers_of_threads_are_compared() -> None:
    here = runs(3)
    elsewhere = [
        make(r.spec.method, seed=r.spec.seed_block, rate=rate, provenance__threads=8, keys__machine="cd" * 32)
        for r, rate in zip(here, [0.05] * 3 + [0.003] * 3 + [0.02] * 3, strict=True)
    ]
    found = of(here, elsewhere)
    agreement, counts = found.threads
    assert counts == (2, 8)
    assert agreement.tau == pytest.approx(1 / 3), "two of three pairs agree"
    assert "Kendall's tau between 2, 8 threads: 0.33." in text(found)


def test_halves_of_the_budget() -> None:
    """Two curves that cross after the half: the order turns round."""
    slow = [1.0 - 0.019 * k for k in range(51)]
    fast = [max(0.4 - 0.001 * k, 0.0) for k in range(51)]
    records = [make("adam", seed=s, values=slow, target=None) for s in range(3)]
    records += [make("sgd", seed=s, values=fast, target=None) for s in range(3)]
    assert of(records).halves == -1.0


def test_without_a_target_only_the_end_is_ranked() -> None:
    found = of([r for m in ("adam", "sgd") for r in (make(m, seed=s, target=None) for s in range(3))])
    assert [axis.name for axis in found.axes][:4] == ["final"]


def test_nothing_to_order() -> None:
    (group,) = groups([make("adam", seed=0)])
    assert ranking(group) is None


def test_pairs_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(pairs_csv(of(runs(6))))))
    steps = [row for row in rows if row["axis"] == "step"]
    assert len(steps) == 3
    for row in steps:
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        assert float(row["p"]) <= float(row["p_holm"]) + 1e-12
    best = [row for row in steps if "Adam" in (row["method_a"], row["method_b"])]
    assert all(float(row["logrank_p"]) < 0.05 for row in best)


def test_seconds_are_not_ranked_over_two_machines() -> None:
    records = [make(m, seed=s, keys__machine=("ab" if s else "cd") * 32) for m in ("adam", "sgd") for s in range(3)]
    assert "seconds" not in {axis.name for axis in of(records).axes}


def test_build_writes_order_and_pairs(tmp_path: Path) -> None:
    build(quick_study(3), tmp_path, ("markdown", "csv"), study="quick")
    folder = tmp_path / "tables" / "quick"
    assert (folder / "digits-cnn-ranking.md").read_text().startswith("#### Order seen on digits cnn (2 seeds")
    assert (folder / "digits-cnn-pairs.csv").exists()
    assert "#### Order seen on least squares (3 seeds: to look" in (folder / "index.md").read_text()


def test_the_typical_pair_is_one_that_differs() -> None:
    found = of(runs(4, (("adam", 0.05), ("sgd", 0.04), ("mezo", 1e-4), ("momentum", 1e-4))))
    steps = next(axis for axis in found.axes if axis.name == "step")
    assert math.isfinite(steps.detectable)
    assert steps.detectable > 0.0
    assert np.isfinite(steps.ranking.means).all()


STATISTICS = """
import sys, time
from pathlib import Path
from curvebench.report import ranking, tables
from curvebench.store import Store
records = [r for r in Store(Path(sys.argv[1])).read() if r.spec.task != "cifar10-resnet20"]
made = tables(records)
found = [ranking.ranking(table.group, records) for table in made]
assert len(records) == 144 and all(found)
"".join(map(ranking.text, found))
print(time.process_time())
"""


@pytest.mark.nightly
def test_statistics_of_the_quick_study_take_two_seconds() -> None:
    """Reading, tables and rankings of 144 records, imports included; CPU time, one thread, the least of five."""
    place = ROOT / "results" / "records" / "reference"
    command = [sys.executable, "-c", STATISTICS, str(place)]
    seconds = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) for _ in range(5)
    ]
    print(f"statistics of the quick study: {sorted(seconds)} s")
    assert min(seconds) <= 2.0
