"""AdaHessian's step on ResNet-20 beside what it cannot do without: forward, backward, and backward through both, bare.

Published as ratios, not asserted by the clock: ``CURVEBENCH_PAIRS=50 pytest tests/peers/test_adahessian.py -s`` takes
batches of 128 on two threads, prints wall and CPU ratios to the faster bare form, and that of an SGD step. Without the
variable two rounds of ResNet-8 at batch 2 show that all sides run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.func import functional_call

from curvebench.methods.adahessian_torch import AdaHessian
from curvebench.oracle.torch import Objective, TorchOracle
from curvebench.spec import Query
from curvebench.statistics.pairs import paired_ratio
from curvebench.tasks.cifar_resnet import blocks
from curvebench.tasks.cifar_resnet_torch import torch_resnet

pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
BARE = ("reverse over reverse", "forward over reverse")
Step = Callable[[], object]


def sides(batch: int, depth: int = 20) -> dict[str, Step]:
    """One step of each; every side has a network of its own, with the same parameters at the start."""
    x = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, 10, (batch,), generator=torch.Generator().manual_seed(1))

    def network() -> nn.Module:
        torch.manual_seed(0)
        return torch_resnet(list(blocks(depth)), "batch", 8)

    def loss_of(net: nn.Module) -> Tensor:
        return F.cross_entropy(net(x), y)

    def alone() -> Step:
        net = network()
        optimizer = AdaHessian(net.parameters(), lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            loss_of(net).backward(create_graph=True)
            optimizer.step()

        return step

    def harness() -> Step:
        oracle = TorchOracle(Objective(network(), F.cross_entropy, "categorical"), (Query.GRADIENT, Query.HVP))
        optimizer = AdaHessian(oracle.parameters, lr=1e-4)
        optimizer.oracle = oracle

        def step() -> None:
            oracle.begin_step(oracle.step + 1, (x, y))
            optimizer.step()
            oracle.end_step()

        return step

    def reverse_over_reverse() -> Step:
        net = network()
        params = list(net.parameters())
        z = [torch.randint_like(p, 2) * 2 - 1 for p in params]

        def step() -> object:
            g = torch.autograd.grad(loss_of(net), params, create_graph=True)
            return torch.autograd.grad(g, params, z)

        return step

    def forward_over_reverse() -> Step:
        net = network()
        params = {n: p.detach() for n, p in net.named_parameters()}
        z = {n: torch.randint_like(p, 2) * 2 - 1 for n, p in params.items()}

        def loss(p: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(functional_call(net, p, (x,)), y)

        return lambda: torch.func.jvp(torch.func.grad(loss), (params,), (z,))

    def sgd() -> Step:
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            loss_of(net).backward()
            optimizer.step()

        return step

    return {"alone": alone(), "harness": harness(), BARE[0]: reverse_over_reverse(),
            BARE[1]: forward_over_reverse(), "sgd": sgd()}  # fmt: skip


@pytest.mark.timeout(3600)
def test_a_step_beside_its_bare_derivatives(benchmark: BenchmarkFixture) -> None:
    given = os.environ.get("CURVEBENCH_PAIRS")
    rounds, batch, depth = (int(given), 128, 20) if given else (2, 2, 8)
    torch.set_num_threads(2 if given else 1)

    def measure() -> dict[str, dict[str, list[float]]]:
        steps = sides(batch, depth)
        seen: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in steps} for clock in ("wall", "cpu")}
        for step in steps.values():
            step()
        order = list(steps)
        for index in range(rounds):
            order = order[1:] + order[:1]
            for name in order if index % 2 == 0 else order[::-1]:
                wall, cpu = time.perf_counter(), time.process_time()
                steps[name]()
                seen["wall"][name].append(time.perf_counter() - wall)
                seen["cpu"][name].append(time.process_time() - cpu)
        return seen

    seen = benchmark.pedantic(measure, rounds=1)
    for clock, times in seen.items():
        floor = min(BARE, key=lambda name, times=times: median(times[name]))
        for name in times:
            r = paired_ratio(times[name], times[floor])
            assert r.low <= r.ratio <= r.high
            assert r.n == rounds
            benchmark.extra_info[f"{clock} {name}"] = r.ratio
            beside = paired_ratio(times[name], times["sgd"]).ratio
            print(f"{clock}: {name} / {floor} = {r.ratio:.3f} [{r.low:.3f}, {r.high:.3f}], / sgd = {beside:.2f}, "
                  f"ResNet-{depth}, batch {batch}, n = {rounds}")  # fmt: skip
    assert torch.get_num_threads() == (2 if given else 1)
