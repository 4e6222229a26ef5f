"""AdaHessian against a replay in NumPy that shares no code with it, for the configurations of the authors' scripts.

The replay takes gradients and dense Hessians from ``torch.func`` (forward over reverse), averages by explicit lists of
elements, and keeps its own parameters over all steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from curvebench.methods.adahessian_torch import AdaHessian

pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")

STEPS = 6
CONFIGS: dict[str, dict[str, Any]] = {
    "base": {"lrs": [0.15] * 6, "eps": 1e-4, "wd": 0.0, "k": 1.0},
    "wd_k05": {"lrs": [0.15] * 3 + [0.015] * 2 + [0.0015], "eps": 1e-4, "wd": 5e-4 / 0.15, "k": 0.5},
    "gentle": {"lrs": [0.01] * 6, "eps": 1e-2, "wd": 1e-2, "k": 1.0},
}


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def build(problem: str) -> tuple[nn.Module, tuple[int, ...], int]:
    """The module, the shape of a batch, the number of classes."""
    torch.manual_seed(0)
    if problem == "mlp":
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double(), (16, 5), 3
    if problem == "lnmlp":
        return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4)).double(), (16, 4), 4
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3, track_running_stats=False), nn.Softplus(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.Tanh(), nn.Conv2d(4, 4, 1), nn.Tanh(),
        Pool(), nn.Flatten(), nn.Linear(4, 3),
    ).double(), (8, 2, 6, 6), 3  # fmt: skip


def pieces(shape: tuple[int, ...], rule: Any) -> list[list[int]]:
    """Groups of flat indices, row-major, whose |Hz| is averaged."""
    flat = np.arange(int(np.prod(shape))).reshape(shape)
    n = len(shape)
    whole_axes = (n == 4 and rule == "conv") or (n >= 2 and (rule == "row" or (rule != "conv" and rule[n - 1] == -1)))
    if whole_axes:
        lead = {2: 1, 3: 2, 4: 2}[n]  # one row, one filter's last dimension, one kernel
        return [flat[index].reshape(-1).tolist() for index in np.ndindex(*shape[:lead])]
    block = 1 if isinstance(rule, str) or rule[n - 1] == -1 else rule[n - 1]
    return [list(range(start, start + block)) for start in range(0, flat.size, block)]


def replay(problem: str, config: dict[str, Any], rule: Any, data: list[Any], z: list[list[np.ndarray]]) -> Any:
    """The parameters after every step."""
    module, _, _ = build(problem)
    shapes = {n: tuple(p.shape) for n, p in module.named_parameters()}
    theta = np.concatenate([p.detach().numpy().reshape(-1) for p in module.parameters()])
    m, v, out = np.zeros_like(theta), np.zeros_like(theta), []
    sizes = [int(np.prod(s)) for s in shapes.values()]

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        live = {n: t.view(s) for (n, s), t in zip(shapes.items(), flat.split(sizes), strict=True)}
        return F.cross_entropy(functional_call(module, live, (x,)), y)

    for t in range(1, STEPS + 1):
        x, y = data[t - 1]
        at = torch.from_numpy(theta)
        g = torch.func.grad(loss)(at, x, y).numpy()
        H = torch.func.jacfwd(torch.func.grad(loss))(at, x, y).numpy()
        magnitude = np.abs(H @ np.concatenate([d.reshape(-1) for d in z[t - 1]]))
        D, start = np.empty_like(theta), 0
        for shape, size in zip(shapes.values(), sizes, strict=True):
            for group in pieces(shape, rule):
                where = start + np.array(group)
                D[where] = magnitude[where].sum() / len(group)
            start += size
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * D**2
        denominator = np.sqrt(v / (1 - 0.999**t)) ** config["k"] + config["eps"]
        theta = theta - config["lrs"][t - 1] * (m / (1 - 0.9**t) / denominator + config["wd"] * theta)
        out.append(theta)
    return out


CASES = [(problem, config, "conv") for problem in ("mlp", "lnmlp", "conv") for config in CONFIGS]
CASES += [
    ("mlp", "base", (1, 2, 1, 1)),
    ("mlp", "wd_k05", (1, -1, -1, -1)),
    ("lnmlp", "gentle", (2, 4, 1, 1)),
    ("lnmlp", "base", (1, 32, 1, 1)),  # the translation scripts' block; here each matrix is one block
    ("conv", "gentle", (-1, -1, -1, -1)),
    ("conv", "base", "row"),
    ("conv", "wd_k05", (1, 4, 1, 2)),
    ("conv", "gentle", (1, 1, 1, -1)),
]


@pytest.mark.parametrize(("problem", "config", "rule"), CASES)
@pytest.mark.parametrize("foreach", [None, False])
def test_it_is_the_replay(problem: str, config: str, rule: Any, foreach: bool | None) -> None:
    module, shape, classes = build(problem)
    rng, c = np.random.default_rng(3), CONFIGS[config]
    data = [
        (torch.from_numpy(rng.standard_normal(shape)), torch.from_numpy(rng.integers(0, classes, shape[0])))
        for _ in range(STEPS)
    ]
    z = [[rng.integers(0, 2, p.shape) * 2.0 - 1 for p in module.parameters()] for _ in range(STEPS)]
    optimizer = AdaHessian(module.parameters(), lr=c["lrs"][0], eps=c["eps"], weight_decay=c["wd"],
                           hessian_power=c["k"], averaging=rule, foreach=foreach)  # fmt: skip
    expected = replay(problem, c, rule, data, z)
    for step in range(STEPS):
        for group in optimizer.param_groups:  # what a scheduler does
            group["lr"] = c["lrs"][step]
        optimizer.zero_grad()
        x, y = data[step]
        F.cross_entropy(module(x), y).backward(create_graph=optimizer.needs_graph)
        optimizer.step(probes=[torch.from_numpy(d) for d in z[step]])
        found = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()
        np.testing.assert_allclose(found, expected[step], rtol=1e-9, atol=1e-10)


def test_strides_do_not_matter_for_blocks() -> None:
    """Blocks run through the elements as they are indexed, whatever the memory's order of kernels and their H z."""
    ends = []
    for memory in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3)).double().to(memory_format=memory)
        x = torch.randn(2, 2, 7, 7, dtype=torch.float64).to(memory_format=memory)
        optimizer = AdaHessian(module.parameters(), lr=0.01, averaging=(1, 1, 1, 6),
                               generator=torch.Generator().manual_seed(0))  # fmt: skip
        for _ in range(3):
            optimizer.step(lambda module=module, x=x: module(x).square().mean())
        ends.append([p.detach().contiguous() for p in module.parameters()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
