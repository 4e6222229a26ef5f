"""``curvebench bench`` and ``curvebench run``: real runs of a second, and everything that is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

STUDY = """
name = "tiny"
title = "Tiny"
summary = "two methods on one task"
tasks = ["least-squares"]
methods = ["sgd", "adam"]
frameworks = ["torch"]
seeds = 2
scale = "quick"
hyperparameters = "card"
[budget]
steps = 20
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(STUDY)
    return tmp_path


def curvebench(here: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "CURVEBENCH_SMOKE"}
    return subprocess.run(
        [sys.executable, "-m", "curvebench", *words],
        cwd=here,
        env={**inherited, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_study_runs_once_and_is_then_there(here: Path) -> None:
    planned = curvebench(here, "bench", "tiny.toml", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert len(planned.stdout.splitlines()) == 5
    assert "tiny: 4 runs, 0 stored, 4 to run: about " in planned.stdout
    assert not (here / "results").exists(), "--plan runs and writes nothing"

    first = curvebench(here, "bench", "tiny.toml")
    assert first.returncode == 0, first.stderr
    assert "4 runs, 4 of them now in" in first.stderr
    assert "Adam" in first.stdout
    assert "SGD" in first.stdout
    assert len(list((here / "results" / "records").rglob("*.json"))) == 4
    table = here / "results" / "tables" / "tiny" / "least-squares.md"
    figure = here / "results" / "figures" / "tiny" / "least-squares.svg"
    assert "Adam" in table.read_text()
    drawn = figure.stat().st_mtime_ns

    script = (
        "import sys; from curvebench.cli.main import cli; cli.main(['bench', 'tiny.toml'], standalone_mode=False);"
        "assert not {'torch', 'jax', 'matplotlib', 'seaborn'} & set(sys.modules), 'imported'"
    )
    began = time.monotonic()
    again = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=False)
    assert time.monotonic() - began < 20, "3 s where nothing else runs"
    assert again.returncode == 0, again.stderr
    assert "tiny: all 4 runs were stored" in again.stderr
    assert again.stdout == first.stdout
    assert figure.stat().st_mtime_ns == drawn, "drawn again without need"

    figure.unlink()
    report = curvebench(here, "bench", "tiny.toml", "--json")
    parsed = json.loads(report.stdout)
    assert (parsed["study"], parsed["runs"], parsed["stored"], parsed["ran"]) == ("tiny", 4, 4, 0)
    assert {row["method"] for row in parsed["tables"][0]["rows"]} == {"sgd", "adam"}
    assert figure.exists(), "a figure that is gone is drawn again"

    plan = json.loads(curvebench(here, "bench", "tiny.toml", "--plan", "--json", "--seeds", "3").stdout)
    assert [run["stored"] for run in plan["runs"]].count(True) == 4
    assert len(plan["runs"]) == 6


def test_smoke_says_so_and_keeps_its_tables_apart(here: Path) -> None:
    done = curvebench(here, "bench", "tiny.toml", "--only-method", "sgd", CURVEBENCH_SMOKE="1")
    assert done.returncode == 0, done.stderr
    assert "CURVEBENCH_SMOKE is set: one seed and at most 2 s a run" in done.stderr
    assert [path.name for path in (here / "results" / "tables").iterdir()] == ["tiny-smoke-variant"]


def test_one_run(here: Path) -> None:
    words = ("run", "least-squares", "sgd", "--steps", "10", "--set", "lr=0.02")
    first = curvebench(here, *words)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("least-squares / sgd / torch / seed 0: ")
    assert "lr = 0.02 (given)" in first.stdout
    assert "10 steps" in first.stdout
    assert "stored: " in first.stderr

    again = curvebench(here, "run", "sgd", "least-squares", *words[3:], "--json")
    record = json.loads(again.stdout)
    assert "stored before" not in again.stdout
    assert (record["attempt"], record["spec"]["hyperparameters"]["lr"]) == (1, 0.02)
    once_more = curvebench(here, *words, "--again", "--json")
    assert json.loads(once_more.stdout)["attempt"] == 2


def test_a_method_that_raises_is_a_result_with_exit_code_1(here: Path) -> None:
    (here / "boom.toml").write_text(
        """
name = "boom"
title = "Boom"
family = "first-order"
summary = "raises"
needs = ["gradient"]
[hyperparameters.lr]
default = 0.01
range = "(0, inf)"
about = "step size"
[cost]
step = { gradient = 1 }
state = "0"
[implementation.torch]
target = "boom:Boom"
arguments = { lr = "$lr" }
"""
    )
    (here / "boom.py").write_text(
        """
import torch


class Boom(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("it went boom")
"""
    )
    done = curvebench(here, "run", "least-squares", "boom.toml")
    assert "it went boom" in done.stdout, done.stderr
    assert "crashed" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("bench", "tinny"), "unknown study 'tinny'"),
        (("bench", "absent.toml"), "absent.toml: cannot be read: No such file or directory"),
        (("bench", "tiny.toml", "--only-method", "adm"), "did you mean 'adam'?"),
        (("bench", "tiny.toml", "--jobs", "999"), "--jobs 999: must be at most"),
        (("bench", "tiny.toml", "--jobs", "0"), "--jobs 0: must be at least 1"),
        (("bench", "tiny.toml", "--device", "tpu"), "--device tpu: must be cpu, cuda or cuda:<number>"),
        (("bench", "tiny.toml", "--timeout", "0"), "--timeout"),
        (("run", "least-square", "sgd"), "unknown task 'least-square': did you mean 'least-squares'"),
        (("run", "least-squares", "sdg"), "did you mean 'sgd'"),
        (("run", "least-squares", "sgd", "--set", "lrr=1"), "sgd: lrr: unknown hyperparameter: did you mean 'lr'?"),
        (("run", "least-squares", "sgd", "--set", "lr=-1"), "sgd: lr = -1"),
        (("run", "least-squares", "sgd", "--set", "lr"), "--set lr: must read NAME=VALUE, e.g. --set lr=0.1"),
        (("run", "least-squares", "sgd", "--needs", "gradients"), "unknown query 'gradients'"),
    ],
)
def test_what_is_refused_is_one_sentence_and_exit_code_2(here: Path, words: tuple[str, ...], sentence: str) -> None:
    done = curvebench(here, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (here / "results").exists()


def test_a_device_that_is_not_here_is_refused(here: Path) -> None:
    done = curvebench(here, "run", "least-squares", "sgd", "--device", "cuda:99")
    assert done.returncode == 2
    assert "--device cuda:99: " in done.stderr
