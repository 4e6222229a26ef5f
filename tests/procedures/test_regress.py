"""``curvebench regress`` finds slow-downs that are put in, none between a commit and itself, and says what is odd."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from curvebench.cli.main import cli
from curvebench.errors import CurvebenchError
from curvebench.procedures.regress import Plan, bisect, compare, discover, judge
from curvebench.procedures.source_trees import Tree, between, resolve, trees
from curvebench.statistics.slowdown import blocks_needed, detectable, noise, slowdown

BENCHMARKS = """
class Work:
    params = [1, 2]
    def setup(self, size):
        import curvebench
        self.n = 2000 * size * curvebench.FACTOR // 100
    def time_sum(self, size):
        return sum(range(self.n))

class Broken:
    def time_raises(self):
        import curvebench
        if curvebench.FACTOR > 100:
            raise RuntimeError("no such kernel any more")

class New:
    def setup(self):
        from curvebench import added
    def time_new(self):
        pass
"""


def sh(folder: Path, *words: str) -> str:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def write(folder: Path, factor: int, more: str = "") -> None:
    (folder / "src" / "curvebench").mkdir(parents=True, exist_ok=True)
    (folder / "src" / "curvebench" / "__init__.py").write_text(f"FACTOR = {factor}\n{more}")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five commits: the third doubles the work; the working tree adds a kernel on top."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "toy.py").write_text(BENCHMARKS)
    sh(root, "git", "init", "-q", "-b", "main")
    for name, value in (("user.name", "a"), ("user.email", "a@b"), ("commit.gpgsign", "false")):
        sh(root, "git", "config", name, value)
    for number, factor in enumerate((100, 100, 200, 200, 200)):
        write(root, factor)
        (root / "note").write_text(str(number))
        sh(root, "git", "add", "-A")
        sh(root, "git", "commit", "-q", "-m", f"commit {number}")
        sh(root, "git", "tag", f"t{number}")
    write(root, 200, "added = 1\n")
    return root


# -- the test itself ---------------------------------------------------------------------------------------------------


def simulated(rng: np.random.Generator, n: int, scatter: float, factor: float) -> tuple[list[float], list[float]]:
    base = np.exp(scatter / np.sqrt(2) * rng.standard_normal(n))
    return list(base), list(factor * np.exp(scatter / np.sqrt(2) * rng.standard_normal(n)))


@pytest.mark.parametrize("scatter", [0.02, 0.08])
@pytest.mark.parametrize("factor", [1.1, 1.3, 2.0])
def test_a_slow_down_of_the_stated_size_is_found_with_the_stated_power(scatter: float, factor: float) -> None:
    rng, found, times = np.random.default_rng(0), 0, 200
    n = blocks_needed(scatter, 0.03, 0.10, 0.01, 0.9)
    for _ in range(times):
        found += slowdown(*simulated(rng, n, scatter, factor), 0.03).p <= 0.01
    assert found / times >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / times)


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_no_slow_down_raises_no_more_alarms_than_stated(factor: float) -> None:
    """At the tolerance itself as often as alpha says, below it less."""
    rng, alarms, times = np.random.default_rng(1), 0, 1000
    for _ in range(times):
        alarms += slowdown(*simulated(rng, 20, 0.05, factor), 0.03).p <= 0.05
    assert alarms <= 0.05 * times + 3 * np.sqrt(0.05 * 0.95 * times)
    assert factor > 1 or alarms <= 5


def test_the_interval_covers_and_the_noise_does_not_see_a_shift() -> None:
    rng, inside = np.random.default_rng(2), 0
    for _ in range(400):
        seen = slowdown(*simulated(rng, 16, 0.1, 1.5), 0.0)
        inside += seen.low <= 1.5 <= seen.high
    assert 0.91 <= inside / 400 <= 0.985
    d = rng.standard_normal(51)
    assert noise(d) == pytest.approx(noise(d + 7.0))


def test_planning_is_its_own_inverse() -> None:
    n = blocks_needed(0.1, 0.03, 0.10, 0.001, 0.9)
    assert detectable(0.1, n, 0.03, 0.001, 0.9) <= 0.10 < detectable(0.1, n - 1, 0.03, 0.001, 0.9)
    with pytest.raises(ValueError, match=r"detect = 0.02: must be above the tolerance 0.03"):
        blocks_needed(0.1, 0.03, 0.02, 0.05, 0.9)
    with pytest.raises(ValueError, match="at least six"):
        slowdown([1.0] * 5, [1.0] * 5, 0.0)
    with pytest.raises(ValueError, match="not positive"):
        slowdown([0.0] * 8, [1.0] * 8, 0.0)


def test_bisection_names_the_first_bad_commit_and_gives_up_where_it_cannot_tell() -> None:
    commits = [str(i) for i in range(11)]
    asked: list[str] = []

    def slower(commit: str) -> bool:
        asked.append(commit)
        return int(commit) >= 7

    assert bisect(commits, slower) == "7"
    assert len(asked) <= 4
    assert bisect(commits, lambda _: None) is None
    assert bisect(commits[:1], slower) == "0"


# -- trees and benchmarks ----------------------------------------------------------------------------------------------


def test_benchmarks_have_the_names_that_asv_gives_them(checkout: Path) -> None:
    names = [benchmark.name for benchmark in discover(checkout / "benchmarks")]
    assert names == ["toy.Work.time_sum(1)", "toy.Work.time_sum(2)", "toy.Broken.time_raises", "toy.New.time_new"]
    assert [b.name for b in discover(checkout / "benchmarks", ["sum(2"])] == ["toy.Work.time_sum(2)"]
    with pytest.raises(
        CurvebenchError, match=r"kernel = 'mfac': no timed benchmark's name holds it: toy.Work.time_sum"
    ):
        discover(checkout / "benchmarks", ["mfac"])
    with pytest.raises(CurvebenchError, match="holds no benchmarks"):
        discover(checkout / "nowhere")


def test_trees_are_the_commits_and_are_gone_afterwards(checkout: Path) -> None:
    with trees(checkout, "t0", ".") as (old, new):
        assert (old.path / "note").read_text() == "0"
        assert (new.path, new.changes, new.commit) == (checkout, 1, resolve(checkout, "t4"))
        assert str(new).startswith("working tree (")
        left = old.path
    assert not left.exists()
    assert len(sh(checkout, "git", "worktree", "list").splitlines()) == 1
    assert [sh(checkout, "git", "tag", "--points-at", c) for c in between(checkout, "t1", "t4")] == ["t2", "t3", "t4"]


def test_what_is_no_commit_or_no_checkout_is_said(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(CurvebenchError, match="commit = 'v9': there is no such commit"):
        resolve(checkout, "v9")
    with pytest.raises(CurvebenchError, match="is not a git checkout"):
        resolve(tmp_path, "main")
    with pytest.raises(CurvebenchError, match="nothing between them to bisect"):
        between(checkout, "t4", "t1")


# -- for real ----------------------------------------------------------------------------------------------------------


def test_a_doubled_kernel_is_found_and_what_raises_does_not_stop_the_rest(checkout: Path) -> None:
    words = ["regress", "t0", ".", "--repo", str(checkout), "--detect", "0.5", "--seconds", "20", "--json"]
    words += ["--kernel", "sum(1", "--kernel", "Broken", "--kernel", "New"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1, done.output
    seen = {row["benchmark"]: row for row in json.loads(done.stdout)}
    assert seen["toy.Work.time_sum(1)"]["verdict"] == "slower"
    assert 1.5 < seen["toy.Work.time_sum(1)"]["ratio"] < 2.7
    assert seen["toy.Broken.time_raises"]["verdict"] == "failed"
    assert "RuntimeError: no such kernel any more (toy.py:" in seen["toy.Broken.time_raises"]["sentence"]
    assert seen["toy.New.time_new"]["verdict"] == "new"
    assert "cannot import name 'added'" in seen["toy.New.time_new"]["sentence"]


@pytest.mark.nightly
def test_bisect_finds_the_commit(checkout: Path) -> None:
    words = ["regress", "t0", "t4", "--repo", str(checkout), "--kernel", "sum(2", "--detect", "0.5", "--bisect"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1, done.output
    assert f"since {resolve(checkout, 't2')[:10]}" in done.stdout


def test_a_mistake_in_what_was_asked_is_exit_code_two(checkout: Path) -> None:
    for words, sentence in (
        (["v9"], "commit = 'v9': there is no such commit"),
        (["t0", "--kernel", "nix"], "no timed benchmark's name holds it"),
        (["t0", "--detect", "0.01"], "must be above --tolerance 0.03"),
    ):
        done = CliRunner().invoke(cli, ["regress", *words, "--repo", str(checkout)])
        assert done.exit_code == 2
        assert sentence in done.stderr


def compared(tree: Tree, other: Tree, benchmarks: Path, plan: Plan) -> str:
    outcome = compare(tree, other, discover(benchmarks, ["sum(2"])[0], plan)
    judge([outcome], plan)
    return outcome.verdict


def test_a_commit_is_not_slower_than_itself(checkout: Path) -> None:
    with trees(checkout, "t0") as (tree,):
        plan = Plan(detect=0.3, seconds=20)
        assert compared(tree, tree, checkout / "benchmarks", plan) in {"no change", "too noisy"}


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_fifty_comparisons_of_a_commit_with_itself_and_three_sizes_of_slow_down(checkout: Path, tmp_path: Path) -> None:
    """alpha = 0.05 each: 50 comparisons raise at most 6 alarms with 99 % probability; 20 of each size, power 0.9."""
    plan, benchmarks = Plan(seconds=60), checkout / "benchmarks"
    with trees(checkout, "t0") as (tree,):
        alarms = [compared(tree, tree, benchmarks, plan) for _ in range(50)]
        found = {}
        for factor in (110, 130, 200):
            write(tmp_path / str(factor), factor)
            slower = Tree(f"x{factor}", tree.commit, tmp_path / str(factor))
            found[factor] = [compared(tree, slower, benchmarks, plan) for _ in range(20)]
    print({"alarms": alarms.count("slower"), **{f: v.count("slower") for f, v in found.items()}})
    assert alarms.count("slower") <= 6
    for verdicts in found.values():
        decided = [verdict for verdict in verdicts if verdict != "too noisy"]
        assert decided.count("slower") >= 0.7 * len(decided)
