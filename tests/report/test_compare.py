"""Two sides on one page: differences are named, noise is called noise, few seeds are refused the stronger word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from synthetic import make

from curvebench.cli.main import cli
from curvebench.errors import StoreError
from curvebench.report.compare import Contrast, Difference, contrast
from curvebench.report.compare_text import render, to_json
from curvebench.report.sides import Side, side
from curvebench.store import Record, Store

OTHER = "ef" * 32


def runs(method: str = "adam", count: int = 5, shift: float = 0.0, first: int = 0, **changes: Any) -> list[Record]:
    """Final metrics 0.2 plus noise of the seed block, which both sides share, plus a little of the shift's own."""
    return [
        make(method, seed=s, status="budget", target=None, values=[1.0, 0.2 + 0.05 * (s % 3) + shift * (1 + 0.01 * s)],
             metric__name="error", **changes)
        for s in range(first, first + count)
    ]  # fmt: skip


def sides(a: list[Record], b: list[Record]) -> Contrast:
    return contrast(Side("a", "folder", tuple(a)), Side("b", "folder", tuple(b)))


def number(found: Contrast, name: str) -> Difference:
    (one,) = [d for d in found.matches[0].differences if d.name == name]
    return one


def test_five_seed_blocks_carry_a_claim_that_pairing_finds() -> None:
    found = number(sides(runs("adam"), runs("sgd", shift=0.01)), "final")
    assert found.comparison is not None
    assert (found.word, found.better, found.paired, found.comparison.n) == ("differs", "A", True, 5)
    assert found.comparison.difference.mean == pytest.approx(-0.0102), "the blocks' own 0.05 cancels"


@pytest.mark.parametrize(("count", "word"), [(1, "too few to tell"), (2, "too few to tell"), (3, "seems to differ"),
                                             (4, "seems to differ"), (5, "differs")])  # fmt: skip
def test_the_stronger_word_is_refused_to_few_seeds(count: int, word: str) -> None:
    assert number(sides(runs("adam", count), runs("sgd", count, shift=0.01)), "final").word == word


def test_noise_is_called_noise_with_the_n_that_would_tell() -> None:
    a = [make("adam", seed=s, values=[1.0, v], metric__name="error") for s, v in enumerate((0.2, 0.3, 0.4, 0.3, 0.2))]
    b = [make("sgd", seed=s, values=[1.0, v], metric__name="error") for s, v in enumerate((0.3, 0.2, 0.3, 0.4, 0.25))]
    found = number(sides(a, b), "final")
    assert (found.word, found.better) == ("within noise", None)
    assert "detectable: " in found.note
    assert "would need n = " in found.note


def test_rows_without_a_common_seed_block_are_compared_by_welch() -> None:
    found = number(sides(runs("adam"), runs("sgd", shift=0.5, first=5)), "final")
    assert not found.paired
    assert found.word == "differs"
    from scipy import stats

    x, y = ([r.final.metric for r in rows] for rows in (runs("adam"), runs("sgd", shift=0.5, first=5)))
    assert found.comparison is not None
    assert found.comparison.p == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue, rel=1e-12)


def test_costs_are_factors_and_misses_restricted_means() -> None:
    quick = [make("adam", seed=s, rate=0.05) for s in range(5)]
    slow = [make("sgd", seed=s, rate=0.02) for s in range(5)]
    found = number(sides(quick, slow), "step")
    assert found.comparison is not None
    assert found.comparison.difference.geometric
    assert (found.word, found.better) == ("differs", "A")
    missed = [make("sgd", seed=s, rate=0.0001) for s in range(5)]
    found = number(sides(quick, missed), "step")
    assert "restricted mean over" in found.note
    assert "A missed 0, B 5" in found.note
    assert found.better == "A"


def test_times_of_two_machines_are_never_compared() -> None:
    found = sides(runs(), runs(keys__machine=OTHER, seconds__step__median=9.0))
    assert found.by.startswith("task, budget, method, framework and hyper")
    step = number(found, "step_ms")
    assert (step.word, step.comparison, step.a, step.b) == (None, None, None, None)
    assert step.note == "not compared: the runs were measured on 2 different machines"
    assert ("key.machine", "abababababab", "efefefefefef") in found.matches[0].facts
    assert number(found, "final").word == "identical"


def test_what_differs_is_named() -> None:
    newer = runs(provenance__git={"commit": "e" * 40, "dirty": True}, keys__code="beef" * 16)
    for one in sides(runs(), newer).matches:
        assert {what: (a, b) for what, a, b in one.facts} == {
            "key.code": ("c0dec0dec0de", "beefbeefbeef"), "git commit": ("d" * 9, "e" * 9 + "+"),
        }  # fmt: skip
    facts = {what: (a, b) for what, a, b in sides(runs("adam"), runs("sgd")).matches[0].facts}
    assert facts["spec.method"] == ("adam", "sgd")


def test_a_row_with_a_diverged_seed_has_no_final_metric() -> None:
    lost = [
        *runs("sgd", 4),
        make("sgd", seed=4, status="diverged", target=None, values=[1.0, None], metric__name="error"),
    ]
    found = number(sides(runs("adam"), lost), "final")
    assert (found.word, found.note) == (None, "not compared: B diverged")


def test_p_is_adjusted_over_the_page() -> None:
    a = [*runs("adam"), *runs("adam", task="digits-cnn")]
    both = sides(a, [*runs("sgd", shift=0.01), *runs("sgd", shift=0.01, task="digits-cnn")])
    assert len(both.matches) == 2
    assert "Holm's correction over the" in render(both)


def test_a_side_is_what_fits_first(tmp_path: Path) -> None:
    known = [*runs("adam"), *runs("sgd", keys__machine=OTHER)]
    run = known[0].keys.run
    assert side("adam", known).kind == "method"
    assert [r.keys.run for r in side(run[:8], known).records] == [run]
    assert side("commit:dddd", known).kind == "commit"
    assert len(side("machine:efef", known).records) == 5
    path = Store(tmp_path).append(known[0])
    assert side(str(path), []).records[0].keys == known[0].keys
    assert side(str(tmp_path), []).kind == "folder"
    with pytest.raises(StoreError, match="nothing-like-it: neither a record's file, a folder"):
        side("nothing-like-it", known)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(StoreError, match="cannot be read as a record"):
        side(str(tmp_path / "broken.json"), known)


def test_the_same_records_or_other_tasks_are_refused() -> None:
    with pytest.raises(StoreError, match="a and b are the same 5 records"):
        sides(runs(), runs())
    with pytest.raises(StoreError, match="no task with the same metric in common: least-squares; digits-cnn"):
        sides(runs(), runs(task="digits-cnn"))


def test_the_verb_prints_one_page(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for one in [*runs("adam"), *runs("sgd", shift=0.01)]:
        store.append(one)
    base = ["compare", "adam", "sgd", "--records", str(tmp_path)]
    page = CliRunner().invoke(cli, base)
    assert page.exit_code == 0, page.output
    assert "differs: A is better" in page.stdout
    assert (
        "## least squares: Adam in torch (A), SGD in torch (B)" in CliRunner().invoke(cli, [*base, "--markdown"]).stdout
    )
    content = json.loads(CliRunner().invoke(cli, [*base, "--json", "--task", "least-squares"]).stdout)
    assert content["matches"][0]["numbers"][0]["verdict"] == "differs"
    assert content["a"] == {"name": "adam", "kind": "method", "records": 5}
    refused = CliRunner().invoke(cli, [*base, "--framework", "jax"])
    assert (refused.exit_code, "no record of jax among its 5" in refused.stderr) == (2, True)


def test_json_has_what_the_page_has() -> None:
    found = sides(runs("adam"), runs("sgd", shift=0.01))
    content = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert [n["name"] for n in content["matches"][0]["numbers"]] == [d.name for d in found.matches[0].differences]
