"""M-FAC's kernels against their floors in the same process, interleaved.

A step against two passes over its window, the static set-up against the authors' recursion. Published as ratios
(docs/methods/mfac.md), not asserted by the clock: `CURVEBENCH_PAIRS=50 pytest tests/peers/test_mfac.py -s` on two
threads, with `CURVEBENCH_CLOCK=cpu` seconds of one thread, for a machine that others use. Without `CURVEBENCH_PAIRS`
the sizes are small.
"""

from __future__ import annotations

import math
import os

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from curvebench.procedures import mfac_cost
from curvebench.statistics.pairs import Ratio

PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "0"))
CLOCK = os.environ.get("CURVEBENCH_CLOCK", "wall")
THREADS = 2 if PAIRS and CLOCK == "wall" else 1
STEPS = mfac_cost.STEP_SIZES if PAIRS else ((8, 10**4), (16, 10**5))
SETUPS = ((128, 10**5), (128, 10**6)) if PAIRS else ((16, 10**4),)


def show(benchmark: BenchmarkFixture, what: str, ratio: Ratio) -> None:
    benchmark.extra_info.update(ratio._asdict(), clock=CLOCK)
    print(f"\n{what}: ratio {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], "
          f"{1e3 * ratio.ours:.2f} and {1e3 * ratio.theirs:.2f} ms, n = {ratio.n} pairs, {CLOCK} clock")  # fmt: skip
    assert 0 < ratio.low <= ratio.ratio <= ratio.high
    assert math.isfinite(ratio.high)


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("m", "d"), STEPS)
def test_a_step_beside_two_passes(benchmark: BenchmarkFixture, m: int, d: int) -> None:
    ratio = benchmark.pedantic(lambda: mfac_cost.step(m, d, PAIRS or 3, THREADS, CLOCK), rounds=1)
    show(benchmark, f"M-FAC step / two passes over the window, m = {m}, d = {d}", ratio)
    assert ratio.n == (PAIRS or 3)


@pytest.mark.parametrize(("m", "d"), SETUPS)
def test_the_setup_beside_the_recursion(benchmark: BenchmarkFixture, m: int, d: int) -> None:
    pairs = min(PAIRS, 50 if d <= 10**5 else 7) or 3  # seven of several seconds each are a minute
    ratio = benchmark.pedantic(lambda: mfac_cost.setup(m, d, pairs, THREADS, CLOCK), rounds=1)
    show(benchmark, f"M-FAC set-up / recursion of matrix-vector products, m = {m}, d = {d}", ratio)


def test_scaling_exponents_are_slopes_in_logarithms() -> None:
    assert mfac_cost.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
