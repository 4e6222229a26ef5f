"""Every kernel, torch and jax, at sizes that show how it scales: seconds, peak memory, error, ratio to its floor.

``CURVEBENCH_ASV``: ``smoke`` takes every sixth kernel at the smallest size (the tests run all),
``full`` adds the large ones.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

# asv forks its children from a process that has imported this file: so each framework is imported once. Nothing is
# computed before the fork, so no thread pool of a framework is lost to it.
import jax
import torch

from curvebench.procedures.kernel_cases import cases, error
from curvebench.statistics.pairs import interleave

warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "8"))
DOSE = os.environ.get("CURVEBENCH_ASV", "quick")
SIZES = {"smoke": [16], "quick": [64, 256], "full": [64, 256, 1024, 4096]}[DOSE]
DEVICES = ["cpu", "cuda"] if list(Path("/dev").glob("nvidia[0-9]*")) else ["cpu"]
MOST_COORDINATES = 1024
"""The largest size at which a loss for each parameter is waited for."""


def _device(framework: str, device: str) -> Any:
    """The device.

    Raises:
        NotImplementedError: it is not here; asv shows n/a.
    """
    if framework == "torch":
        if device == "cuda" and not torch.cuda.is_available():
            raise NotImplementedError("torch sees no CUDA device")
        return device
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    try:
        return jax.devices(device)[0]
    except RuntimeError as missing:
        raise NotImplementedError(str(missing)) from missing


class Kernel:
    """One call, device work included."""

    params = (sorted(cases())[:: 6 if DOSE == "smoke" else 1], SIZES, DEVICES)
    param_names = ("kernel", "n", "device")
    rounds = 1
    repeat = (8, 20, 0.5)
    warmup_time = 0.05
    timeout = 120.0

    def setup(self, kernel: str, n: int, device: str) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.case = cases()[kernel]
        if n > MOST_COORDINATES and ("coordinate" in kernel or "delta" in kernel):
            raise NotImplementedError(f"a loss for each of {n} parameters")
        self.ready = self.case.build(n, _device(self.case.framework, device))
        self.wait = torch.cuda.synchronize if (self.case.framework, device) == ("torch", "cuda") else None

    def _call(self) -> None:
        self.ready.call()
        if self.wait is not None:
            self.wait()

    def _floor(self) -> None:
        assert self.ready.floor is not None
        self.ready.floor()
        if self.wait is not None:
            self.wait()

    def time_call(self, kernel: str, n: int, device: str) -> None:
        self._call()

    def peakmem_call(self, kernel: str, n: int, device: str) -> None:
        self._call()

    def track_error(self, kernel: str, n: int, device: str) -> float:
        # nan is asv's "measured, no value": the kernel has no reference, or it would take too long at this size
        return error(self.ready) if n <= self.case.largest_reference else float("nan")

    def track_ratio(self, kernel: str, n: int, device: str) -> float:
        if self.ready.floor is None:
            return float("nan")
        self._call()
        self._floor()
        return interleave(self._call, self._floor, PAIRS).ratio

    track_error.unit = "largest deviation from float64 / largest element"  # type: ignore[attr-defined]
    track_ratio.unit = "ours / floor"  # type: ignore[attr-defined]
