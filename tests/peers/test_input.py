"""What input costs: a CIFAR batch beside a step of ResNet-20, the first batch, and SST-2's tokens cold and warm.

CPU time of one thread, pairs interleaved, medians; `CURVEBENCH_PAIRS=20 pytest tests/peers/test_input.py -s` prints
them (n pairs). Asserted are only bounds that a loaded machine does not move.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from curvebench import cards, data, tasks
from curvebench.data.checksums import cache
from curvebench.tasks import glue_bert
from curvebench.tasks.runtime_torch import TorchTask

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "3"))
pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHARED / "cifar10/cifar-10-batches-py/test_batch").is_file() or not (SHARED / "glue").is_dir():
        pytest.skip("../shared/data is not here")
    monkeypatch.setenv("CURVEBENCH_DATA", str(SHARED))


def cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_a_batch_of_cifar_is_a_small_part_of_a_step() -> None:
    data.load("cifar10")  # warm: the files are known to be unchanged
    card = cards.task("cifar10-resnet20")
    seen: list[TorchTask] = []

    def first() -> None:
        problem = tasks.load(card, "standard", 0)
        assert problem.augment is not None
        seen.append(TorchTask(problem, torch.device("cpu"), torch.float32))
        seen[0].batch(0)

    start = cpu(first)
    task = seen[0]
    module, inputs, steps = task.objective.module, [], []

    def step(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        loss = task.objective.criterion(module(batch[0]), batch[1])
        torch.autograd.grad(loss, list(module.parameters()))

    for number in range(PAIRS + 1):  # the first pair warms up
        inputs.append(cpu(lambda n=number: task.batch(n)))
        batch = task.batch(number)
        steps.append(cpu(lambda b=batch: step(b)))
    share = statistics.median(inputs[1:]) / statistics.median(steps[1:])
    one, other = (1e3 * statistics.median(times[1:]) for times in (inputs, steps))
    print(f"\ninput: {one:.1f} ms, {100 * share:.2f} % of a ResNet-20 gradient ({other:.0f} ms), n = {PAIRS} pairs")
    print(f"first batch after {start:.2f} s")
    assert share < 0.03
    assert start < 5


def test_sst2_in_tokens() -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'curvebench[bert]'")
    card = cards.dataset("sst2")
    shutil.rmtree(cache() / "tokens", ignore_errors=True)
    cold = cpu(lambda: glue_bert.parts(card, 128))
    warm = statistics.median(cpu(lambda: glue_bert.parts(card, 128)) for _ in range(PAIRS))
    print(f"\nSST-2 in WordPieces: {cold:.2f} s cold (n = 1), {warm:.3f} s warm (median of {PAIRS})")
    assert warm < cold / 5
