"""K-FAC and MKOR steps beside SGD's, and MKOR beside its own matrix products, in the same process, interleaved.

Published as ratios (docs/methods/kfac.md, mkor.md), not asserted by the clock:
`CURVEBENCH_PAIRS=50 pytest tests/peers/test_kronecker.py -s`, with `CURVEBENCH_CLOCK=cpu` and `CURVEBENCH_THREADS=1` on
a machine that others use. Without `CURVEBENCH_PAIRS`: fewer cases, small batches, one thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from curvebench.procedures import kronecker_cost
from curvebench.statistics.pairs import Ratio

PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "0"))
CLOCK = os.environ.get("CURVEBENCH_CLOCK", "wall")
THREADS = int(os.environ.get("CURVEBENCH_THREADS", "2" if PAIRS else "1"))
CASES = [("resnet20", "kfac"), ("resnet20", "mkor"), ("encoder", "kfac"), ("encoder", "ekfac"), ("encoder", "mkor")]
if not PAIRS:
    CASES = [("encoder", "mkor"), ("encoder", "kfac")]


def show(benchmark: BenchmarkFixture, what: str, ratio: Ratio, more: str = "") -> None:
    benchmark.extra_info.update(ratio._asdict(), clock=CLOCK, threads=THREADS)
    print(f"\n{what}: ratio {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]{more}, {1e3 * ratio.ours:.1f} and "
          f"{1e3 * ratio.theirs:.1f} ms, n = {ratio.n} pairs, {CLOCK} clock, {THREADS} threads")  # fmt: skip
    assert 0 < ratio.low <= ratio.ratio <= ratio.high
    assert math.isfinite(ratio.high)
    assert ratio.n == (PAIRS or 3)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("workload", "method"), CASES)
def test_a_step_beside_sgd(benchmark: BenchmarkFixture, workload: str, method: str) -> None:
    batch = None if PAIRS else 2
    cost = benchmark.pedantic(
        lambda: kronecker_cost.step(workload, method, PAIRS or 3, THREADS, CLOCK, batch), rounds=1
    )
    size = batch or kronecker_cost.BATCH[workload]
    show(benchmark, f"{method} / SGD, {workload}, batch {size}", cost.ratio, f", amortised {cost.amortised:.3f}")
    assert cost.amortised > 0


@pytest.mark.parametrize("bias", [True, False])
def test_mkor_beside_its_products(benchmark: BenchmarkFixture, bias: bool) -> None:
    width = 1024 if PAIRS else 64
    ratio = benchmark.pedantic(
        lambda: kronecker_cost.mkor_beside_its_products(width, 128, PAIRS or 3, THREADS, CLOCK, bias), rounds=1
    )
    show(benchmark, f"MKOR step / JG W JA, 3 x Linear({width}){'' if bias else ' without bias'}, 128 rows", ratio)


def test_the_encoder_is_the_size_of_bert_tiny_and_all_its_linear_layers_are_preconditioned() -> None:
    from curvebench.methods.kfac_torch import KFAC

    model = kronecker_cost.encoder()
    assert sum(p.numel() for p in model.parameters()) == 4_328_578
    opt = KFAC(model, lr=0.1)
    assert len(opt.layers) == 2 * 6 + 2
    assert {kind for kind in opt.unsupported.values()} == {"Embedding", "LayerNorm"}


def test_fits_of_scaling_laws() -> None:
    law = kronecker_cost.fit([1, 2, 4, 8], [3, 12, 48, 192])
    assert law.exponent == pytest.approx(2)
    assert law.low == pytest.approx(2)
    noisy = kronecker_cost.fit([1, 2, 4, 8], [3, 14, 40, 200])
    assert noisy.low < noisy.exponent < noisy.high
    with pytest.raises(ValueError, match="2 points"):
        kronecker_cost.fit([1, 2], [1, 2])


def test_the_scaling_laws_cover_updates_and_preconditioning() -> None:
    laws = kronecker_cost.scaling((16, 24, 32), (16, 24, 32), repeats=1)
    assert {name.split()[1] for name in laws} == {"update", "eigenbasis", "inverse", "preconditioning"}
    assert all(len(law.points) == 3 and law.low <= law.exponent <= law.high for law in laws.values())
