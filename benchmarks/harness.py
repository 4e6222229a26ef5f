"""What the harness costs: per step against a bare loop, and from "start this run" to its first step."""

from __future__ import annotations

import json
import os
import subprocess
import sys

_OVERHEAD = """
import json, sys
from curvebench.procedures.overhead import overhead
print(json.dumps(overhead(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))._asdict()))
"""


class Overhead:
    """Extra microseconds per step and the ratio to a bare loop, medians of interleaved pairs."""

    params = (["least-squares", "digits-cnn"], ["torch", "jax"])
    param_names = ("task", "framework")
    timeout = 600.0

    def _measure(self, task: str, framework: str) -> tuple[dict[str, float], int]:
        steps = 100 if task == "least-squares" else 20
        command = [
            sys.executable,
            "-c",
            _OVERHEAD,
            task,
            framework,
            str(steps),
            os.environ.get("CURVEBENCH_PAIRS", "50"),
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return json.loads(out.splitlines()[-1]), steps

    def track_ratio(self, task: str, framework: str) -> float:
        return self._measure(task, framework)[0]["ratio"]

    def track_extra_microseconds(self, task: str, framework: str) -> float:
        ratio, steps = self._measure(task, framework)
        return (ratio["ours"] - ratio["theirs"]) / steps * 1e6

    track_ratio.unit = "ours / bare loop"  # type: ignore[attr-defined]
    track_extra_microseconds.unit = "microseconds"  # type: ignore[attr-defined]


class Isolation:
    """Seconds from "start this run" to the end of its first step on least-squares, compilation included."""

    params = (["torch", "jax"],)
    param_names = ("framework",)
    timeout = 300.0
    unit = "seconds"

    def track_first_step(self, framework: str) -> float:
        code = "import sys; from curvebench.procedures.isolation import median; print(median(sys.argv[1]))"
        out = subprocess.run([sys.executable, "-c", code, framework], capture_output=True, text=True, check=True).stdout
        return float(out.splitlines()[-1])
