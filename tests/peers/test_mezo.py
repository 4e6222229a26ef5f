"""A MeZO step against an inference forward of the same batch in the same process, interleaved.

Published as a ratio (docs/methods/mezo.md), not asserted by the clock: `CURVEBENCH_PAIRS=50 pytest tests/peers -s`
times an encoder like BERT-tiny on two threads, `CURVEBENCH_CLOCK=cpu` counts the seconds of one thread, for a machine
that others use.
"""

from __future__ import annotations

import math
import os

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from curvebench.procedures import mezo_cost

PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "0"))
CLOCK = os.environ.get("CURVEBENCH_CLOCK", "wall")


def test_a_step_beside_an_inference_forward(benchmark: BenchmarkFixture) -> None:
    size = mezo_cost.TINY if PAIRS else mezo_cost.SMALL
    before = torch.get_num_threads()
    try:
        threads = 2 if PAIRS and CLOCK == "wall" else 1
        ratio = benchmark.pedantic(lambda: mezo_cost.duration(size, PAIRS or 3, threads, CLOCK), rounds=1)
    finally:
        torch.set_num_threads(before)
    benchmark.extra_info.update(ratio._asdict(), clock=CLOCK)
    print(f"\nMeZO step / inference forward: ratio {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], "
          f"{1e3 * ratio.ours:.1f} and {1e3 * ratio.theirs:.1f} ms, n = {ratio.n} pairs, {CLOCK} clock")  # fmt: skip
    assert 0 < ratio.low <= ratio.ratio <= ratio.high
    assert math.isfinite(ratio.high)
    assert ratio.n == (PAIRS or 3)
