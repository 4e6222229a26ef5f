"""A step of every method of every card, torch and jax, on a small network: the same engine that runs the studies.

``CURVEBENCH_ASV``: ``smoke`` takes one method of each family in each framework at the smallest width (the test that all
of them run), ``full`` adds the widths that show how a step grows with ``d``.
"""

from __future__ import annotations

import itertools
import os
import traceback
import warnings
from pathlib import Path
from typing import Any

# asv forks its children from a process that has imported this file: so each framework is imported once. Nothing is
# computed before the fork, so no thread pool of a framework is lost to it.
import jax
import torch

from curvebench import cards
from curvebench.errors import DeviceError, UnmetNeedError
from curvebench.procedures.step_cost import STEPS, Cost, Stepper, Unaffordable, cost, implementations

warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
DOSE = os.environ.get("CURVEBENCH_ASV", "quick")
PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "8"))
WIDTHS = {"smoke": [8], "quick": [8, 32], "full": [8, 32, 128, 512]}[DOSE]
DEVICES = ["cpu", "cuda"] if list(Path("/dev").glob("nvidia[0-9]*")) else ["cpu"]
FRAMEWORKS = jax.__name__, torch.__name__
ABSENT = (Unaffordable, DeviceError, UnmetNeedError, ModuleNotFoundError)
"""Why a combination is shown as n/a; any other error is a failure."""


def _chosen() -> list[str]:
    """All implementations, or the first of each family in each framework."""
    if DOSE != "smoke":
        return list(implementations())
    first: dict[tuple[str, str], str] = {}
    for implementation in implementations():
        name, _, framework = implementation.partition("/")
        first.setdefault((cards.method(name).family, framework), implementation)
    return list(first.values())


PARAMS = (_chosen(), WIDTHS, DEVICES)
NAMES = ("implementation", "width", "device")


class Seconds:
    """Ten steps: the seconds, and the peak of a process that makes them."""

    params, param_names = PARAMS, NAMES
    rounds = 1
    repeat = (8, 20, 0.5)
    warmup_time = 0.05
    timeout = 120.0

    def setup(self, implementation: str, width: int, device: str) -> None:
        try:
            self.stepper = Stepper(implementation, width, device)
        except ABSENT as error:
            raise NotImplementedError(str(error)) from error

    def time_ten_steps(self, implementation: str, width: int, device: str) -> None:
        self.stepper.step(STEPS)

    def peakmem_ten_steps(self, implementation: str, width: int, device: str) -> None:
        self.stepper.step(STEPS)


class Costs:
    """What a step asks, keeps and computes, and its seconds in steps of SGD: measured once, in one process."""

    params, param_names = PARAMS, NAMES
    timeout = 1200.0

    def setup_cache(self) -> dict[tuple[str, int, str], Cost | str]:
        found: dict[tuple[str, int, str], Cost | str] = {}
        for case in itertools.product(*PARAMS):
            try:
                found[case] = cost(*case, PAIRS)
            except ABSENT as error:
                found[case] = str(error)
            except Exception:  # the others are measured; this one fails where it is asked for
                found[case] = "failed: " + traceback.format_exc()
        return found

    def setup(self, found: dict[tuple[str, int, str], Cost | str], *case: Any) -> None:
        if isinstance(known := found[case], str):
            raise RuntimeError(known) if known.startswith("failed") else NotImplementedError(known)

    def track_oracle_calls(self, found: dict[tuple[str, int, str], Cost], *case: Any) -> float:
        return found[case].oracle_calls

    def track_state_bytes(self, found: dict[tuple[str, int, str], Cost], *case: Any) -> float:
        return found[case].state_bytes

    def track_gradients(self, found: dict[tuple[str, int, str], Cost], *case: Any) -> float:
        return found[case].gradients

    def track_sgd_steps(self, found: dict[tuple[str, int, str], Cost], *case: Any) -> float:
        return found[case].sgd_steps

    track_oracle_calls.unit = "queries a step"  # type: ignore[attr-defined]
    track_state_bytes.unit = "bytes"  # type: ignore[attr-defined]
    track_gradients.unit = "flops of a step / flops of a gradient"  # type: ignore[attr-defined]
    track_sgd_steps.unit = "seconds of a step / seconds of a step of SGD"  # type: ignore[attr-defined]
