"""asv finds the benchmarks, writes into .asv/ and takes enough samples to see a change."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__")
LEAST_SAMPLES = 8


def test_results_do_not_go_among_the_records() -> None:
    config = json.loads((ROOT / "asv.conf.json").read_text())
    folders = {config[f"{name}_dir"] for name in ("env", "results", "html")}
    assert folders == {".asv/env", ".asv/results", ".asv/html"}
    assert config["environment_type"] == "existing"


@pytest.mark.parametrize("name", FILES)
def test_every_timing_takes_enough_samples(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"asv_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    timed = [c for c in classes if any(attribute.startswith("time_") for attribute in dir(c))]
    loose = [n for n in vars(module) if n.startswith("time_") and not hasattr(getattr(module, n), "repeat")]
    assert not loose, f"no repeat is set for {loose}"
    for suite in timed:
        repeat = getattr(suite, "repeat", 0)
        assert (repeat[0] if isinstance(repeat, tuple) else repeat) >= LEAST_SAMPLES, suite.__name__


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_benchmark_runs_once(tmp_path: Path) -> None:
    # A copy of the configuration: asv writes its list of benchmarks beside the results even when it stores none.
    config = json.loads((ROOT / "asv.conf.json").read_text())
    config.update(repo=str(ROOT), benchmark_dir=str(ROOT / "benchmarks"))
    config.update({f"{name}_dir": str(tmp_path / name) for name in ("env", "results", "html")})
    (tmp_path / "asv.conf.json").write_text(json.dumps(config))
    # One pair a ratio: here they must run, `make asv` measures.
    environ = {
        **os.environ,
        "HOME": str(tmp_path),
        "CURVEBENCH_PAIRS": "1",
        "CURVEBENCH_ASV": "smoke",
    }  # asv keeps a description of the machine there
    for words in ("machine --yes", "run --python=same --quick --dry-run --show-stderr"):
        command = [sys.executable, "-m", "asv", *words.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr  # asv run returns 2 if a benchmark fails
    assert "time_list_methods" in done.stdout
