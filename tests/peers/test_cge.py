"""How much cheaper a full coordinate-wise gradient of a CNN with 40,154 parameters is than by the usual ways.

CPU seconds of one thread, which a busy machine does not change much. The naive loop and layer reuse are timed on a few
coordinates of each layer and scaled to the layer's size; delta propagation does every layer in full. Rounds are
interleaved and medians compared. ``pytest -m nightly tests/peers/test_cge.py -s`` prints the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from curvebench.kernels.cge_torch import coordinate_gradient_delta, coordinate_gradient_reuse
from curvebench.kernels.zeroth_torch import coordinate_gradient

ROUNDS, NAIVE, REUSE = 3, 6, 16
"""Rounds; coordinates of a layer for the two slow ways."""


def cnn() -> nn.Sequential:
    def block(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(3, 16), *block(16, 32), *block(32, 64), nn.Flatten(), nn.Linear(1024, 16), nn.ReLU(),
                         nn.Linear(16, 10))  # fmt: skip


def seconds(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


@pytest.mark.nightly
@pytest.mark.slow
def test_delta_propagation_is_40_times_the_naive_loop_and_5_times_layer_reuse() -> None:
    torch.manual_seed(0)
    net, x, y = cnn(), torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
    parameters: list[Tensor] = list(net.parameters())
    assert sum(p.numel() for p in parameters) == 40_154

    def masks(layer: int, chosen: int | None) -> list[Tensor | None]:
        out = [torch.zeros(p.shape, dtype=torch.bool) for p in parameters]
        size = parameters[2 * layer].numel()
        out[2 * layer].view(-1)[torch.randperm(size)[:chosen] if chosen is not None else slice(None)] = True
        if chosen is None:
            out[2 * layer + 1][:] = True
        return list(out)

    def loss() -> Tensor:
        return F.cross_entropy(net(x), y)

    def naive(layer: int) -> float:
        few = masks(layer, NAIVE)
        return seconds(lambda: coordinate_gradient(loss, parameters, mu=1e-3, masks=few)) / (NAIVE + 1)

    def reuse(layer: int) -> float:
        none, few = masks(layer, 0), masks(layer, REUSE)
        fixed = seconds(lambda: coordinate_gradient_reuse(net, F.cross_entropy, x, y, mu=1e-3, masks=none))
        both = seconds(lambda: coordinate_gradient_reuse(net, F.cross_entropy, x, y, mu=1e-3, masks=few))
        return max(both - fixed, 0.0) / REUSE

    def delta(layer: int) -> float:
        full = masks(layer, None)
        took = seconds(lambda: coordinate_gradient_delta(net, F.cross_entropy, x, y, mu=1e-3, masks=full))
        return took / (parameters[2 * layer].numel() + parameters[2 * layer + 1].numel())

    ways = {"naive": naive, "reuse": reuse, "delta": delta}
    seen: dict[str, list[list[float]]] = {way: [[] for _ in range(5)] for way in ways}
    for _ in range(ROUNDS):
        for layer in range(5):
            for way, measure in ways.items():
                seen[way][layer].append(measure(layer))
    sizes = [parameters[2 * i].numel() + parameters[2 * i + 1].numel() for i in range(5)]
    total = {way: sum(n * median(times) for n, times in zip(sizes, rows, strict=True)) for way, rows in seen.items()}
    for way, rows in seen.items():
        print(f"{way:6} {total[way]:7.1f} s; ms a coordinate:", *(f"{1e3 * median(times):.3f}" for times in rows))
    assert total["naive"] >= 40 * total["delta"]
    assert total["reuse"] >= 5 * total["delta"]
