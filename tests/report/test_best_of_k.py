"""Best of k from stored pools: the committed ones, and small ones by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curvebench import cards
from curvebench.errors import StoreError
from curvebench.report.best_of_k import budgets, build, markdown, tuning, tunings
from curvebench.store import write_tuned

TUNED = Path(__file__).parents[2] / "results" / "tuned"


def pool(method: str, metrics: list[float | None], statuses: list[str] | None = None) -> dict[str, Any]:
    statuses = statuses or ["budget"] * len(metrics)
    return {
        "task": "digits-cnn",
        "method": method,
        "scale": "quick",
        "framework": "torch",
        "pool": "p",
        "trials": len(metrics),
        "hyperparameters": {"lr": 0.1},
        "metric": 0.9,
        "label": "validation accuracy",
        "cost": {"seconds": 4.0, "oracle_calls": 10},
        "runs": [
            {"run": f"{k:016x}", "status": s, "metric": m, "hyperparameters": {}}
            for k, (m, s) in enumerate(zip(metrics, statuses, strict=True))
        ],
    }


def test_by_hand() -> None:
    found = tuning(
        cards.task("digits-cnn"), [pool("adam", [0.9, 0.5]), pool("sgd", [0.8, 0.7], ["budget", "diverged"])]
    )
    assert found.worst == 0.5, "the end of a diverged trial does not count"
    assert [p.method for p in found.pools] == ["adam", "sgd"]
    adam, sgd = found.pools
    assert adam.best.expected.tolist() == pytest.approx([0.7, 0.9])
    assert sgd.best.expected.tolist() == pytest.approx([(0.8 + 0.5) / 2, 0.8])
    assert sgd.failed == 1
    assert sgd.best.failed.tolist() == [0.5, 0.0]
    assert adam.best.seconds.tolist() == [2.0, 4.0]
    printed = markdown(found)
    assert "| adam | torch | 0.700 [" in printed
    assert "| 1/2 |" in printed


def test_the_committed_pools() -> None:
    found = tunings(TUNED)
    assert {t.task.name for t in found} >= {"digits-cnn", "least-squares", "logistic-breast-cancer"}
    for one in found:
        sign = 1.0 if one.task.metric.direction == "min" else -1.0
        for p in one.pools:
            assert (sign * p.best.expected[:-1] >= sign * p.best.expected[1:] - 1e-9).all(), "more is never worse"
            stored = json.loads(next(iter(sorted((TUNED / one.task.name).glob(f"{p.method}*.json")))).read_text())
            if stored["framework"] == p.framework and len(stored["runs"]) == p.trials:
                assert p.best.expected[-1] == pytest.approx(stored["metric"], rel=1e-6)


def test_budgets() -> None:
    assert budgets(8) == [1, 2, 4, 8]
    assert budgets(6) == [1, 2, 4, 6]
    assert budgets(1) == [1]


def test_files_and_a_figure(tmp_path: Path) -> None:
    write_tuned(tmp_path / "tuned", pool("adam", [0.9, 0.5, None], ["budget", "budget", "crashed"]), True)
    written = build(tmp_path / "tuned", tmp_path, ("markdown", "svg"))
    assert [str(p.relative_to(tmp_path)) for p in written] == [
        "tables/best-of-k/digits-cnn.md",
        "figures/best-of-k/digits-cnn.svg",
    ]
    assert "adam" in written[1].read_text()


def test_no_pools(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no tuning pools"):
        tunings(tmp_path)
    (tmp_path / "digits-cnn").mkdir()
    (tmp_path / "digits-cnn" / "adam.json").write_text("{")
    with pytest.raises(StoreError, match="not a stored pool"):
        tunings(tmp_path)
    failed = pool("adam", [None], ["crashed"])
    with pytest.raises(StoreError, match="no trial of any pool"):
        tuning(cards.task("digits-cnn"), [failed])
