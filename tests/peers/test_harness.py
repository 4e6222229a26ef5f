"""The harness's loop against a bare hand-written loop in the same process, interleaved.

Published as ratios (docs/performance.md), not asserted by the clock: `CURVEBENCH_PAIRS=50 pytest tests/peers -s`.
Here a few pairs show that both sides run and that the figure is one.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

SCRIPT = """
import json, sys
from curvebench.procedures.overhead import overhead
task, framework, steps, pairs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
print(json.dumps(overhead(task, framework, steps, pairs)._asdict()))
"""


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize(("task", "steps"), [("least-squares", 100), ("digits-cnn", 20)])
def test_the_harness_beside_a_bare_loop(benchmark: BenchmarkFixture, task: str, steps: int, framework: str) -> None:
    pairs = os.environ.get("CURVEBENCH_PAIRS", "3")

    def measure() -> dict[str, float]:
        # a process of its own: jax's precision is a setting of the process
        import json

        command = [sys.executable, "-c", SCRIPT, task, framework, str(steps), pairs]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return dict(json.loads(run.stdout.splitlines()[-1]))

    ratio = benchmark.pedantic(measure, rounds=1)
    extra = (ratio["ours"] - ratio["theirs"]) / steps * 1e6
    benchmark.extra_info.update(ratio, extra_microseconds_per_step=extra)
    print(f"\n{task} {framework}: ratio {ratio['ratio']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}], "
          f"{extra:+.1f} us a step, n = {ratio['n']:.0f} pairs")  # fmt: skip
    assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert math.isfinite(ratio["ratio"])
    assert ratio["n"] == int(pairs)
