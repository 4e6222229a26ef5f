"""MKOR against a replay in NumPy of what the released code does, step by step: convolutions, clipping, accumulation,
sparse updates, training, both precisions of the factors, rules and stabilisers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import replay
import torch
from torch import nn

from curvebench.methods.mkor_torch import MKOR

Array = np.ndarray


class Released:
    """The rule, written from its description; factors ``J`` in ``dtype``, everything else in ``work``."""

    def __init__(self, layers: list[replay.Layer], *, inv_freq: int, warmup: int = 0, clip: float = 100.0,
                 rule: str = "code", reset: str = "identity", norm: str = "sum", double_average: bool = True,
                 dtype: Any = np.float64) -> None:  # fmt: skip
        self.layers, self.inv_freq, self.warmup, self.clip = layers, inv_freq, warmup, clip
        self.rule, self.reset, self.norm, self.double, self.dtype = rule, reset, norm, double_average, dtype
        self.step = 0
        self.flags = [{"A": reset == "identity", "G": reset == "identity"} for _ in layers]
        for layer in layers:
            o, i = layer.W.shape
            layer.state = {"A": np.eye(i, dtype=dtype), "G": np.eye(o, dtype=dtype)}
        self.resets = 0

    def vectors(self, micro: list[list[tuple[Array, Array]]]) -> list[dict[str, Array]]:
        """Mean input and mean gradient of every layer over the micro-batches; the loss is a mean over their rows."""
        found, accum = [], len(micro)
        for k, layer in enumerate(self.layers):
            a_sum: Any = 0
            g_sum: Any = 0
            for seen in micro:
                a, g = seen[k]
                if layer.kernel is None:  # every row counts; dL/dy times the number of rows
                    a = replay.ones(a.reshape(-1, a.shape[-1]), layer.bias)
                    g = g.reshape(-1, g.shape[-1])
                    g = len(g) * g
                else:  # mean patch and mean gradient of a sample
                    a = replay.ones(a.mean(1), layer.bias)
                    g = len(g) * g.mean(1)
                a_sum = a_sum + np.clip(a / accum, -self.clip, self.clip)
                g_sum = g_sum + np.clip(g / accum if self.double else g, -self.clip, self.clip)
            found.append({"A": a_sum.mean(0), "G": g_sum.mean(0)})
        return found

    def updated(self, J: Array, v: Array) -> Array:
        if self.reset == "blend" and np.abs(J).max() > 2:
            J = 0.9 * J + 0.1 * np.eye(len(J))
            self.resets += 1
        if self.rule == "paper":
            u = J @ v
            return 0.95 * J + 0.05 / (0.95**2 * (1 + 0.95 * 0.05 * v @ u)) * np.outer(u, u)
        if self.rule == "ema":
            Q, v = J / 0.95, np.sqrt(0.05) * v
        else:
            Q = 0.95 * J + 0.05 * np.eye(len(J))
        u = Q @ v
        return Q - np.outer(u, u) / (1 + v @ u)

    def precondition(self, micro: list[list[tuple[Array, Array]]]) -> list[Array]:
        """New gradients ``[o, i]`` of the layers."""
        if self.step % self.inv_freq == 0 or self.step < self.warmup:
            vectors = self.vectors(micro)
            for side in "AG":  # input factors of all layers first
                for layer, flags, v in zip(self.layers, self.flags, vectors, strict=True):
                    if flags[side]:
                        layer.state[side] = np.eye(len(layer.state[side]), dtype=self.dtype)
                        flags[side] = False
                        continue
                    J = layer.state[side].astype(np.float64)
                    layer.state[side] = self.updated(J, v[side]).astype(self.dtype)
                    if self.reset == "identity" and np.abs(layer.state[side]).max() > 2:
                        flags["A"] = flags["G"] = True
                        self.resets += 1
        self.step += 1
        out = []
        for k, layer in enumerate(self.layers):
            dW: Array = np.zeros_like(layer.W)
            for seen in micro:
                a, g = seen[k]
                dW = dW + np.einsum("nto,nti->oi", g, replay.ones(a, layer.bias))
            U = layer.state["G"].astype(np.float64) @ dW @ layer.state["A"].astype(np.float64)
            out.append(U * (self.length(dW, layer.bias) / self.length(U, layer.bias)))
        return out

    def length(self, M: Array, bias: bool) -> float:
        if bias and self.norm == "sum":
            return float(np.linalg.norm(M[:, :-1]) + np.linalg.norm(M[:, -1]))
        return float(np.linalg.norm(M))


def linear_net() -> tuple[nn.Sequential, list[replay.Layer], tuple[int, ...], tuple[int, ...]]:
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4, bias=False))
    return model, [replay.Layer(np.zeros((6, 9)), True), replay.Layer(np.zeros((4, 6)), False)], (8,), (4,)


def conv_net() -> tuple[nn.Sequential, list[replay.Layer], tuple[int, ...], tuple[int, ...]]:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 4, (3, 2), stride=2, padding=(1, 0),
                          bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))  # fmt: skip
    layers = [
        replay.Layer(np.zeros((3, 19)), True, (3, 3), (1, 1), (1, 1)),
        replay.Layer(np.zeros((4, 18)), False, (3, 2), (2, 2), (1, 0)),
        replay.Layer(np.zeros((3, 37)), True),
    ]
    return model, layers, (2, 6, 7), (3,)


def sequence_net() -> tuple[nn.Sequential, list[replay.Layer], tuple[int, ...], tuple[int, ...]]:
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, [replay.Layer(np.zeros((5, 8)), True), replay.Layer(np.zeros((3, 6)), True)], (5, 7), (5, 3)


NETS = {"linear": linear_net, "conv": conv_net, "sequence": sequence_net}

# name, net, options, micro-batches, steps, size of the data
CASES: list[tuple[str, str, dict[str, Any], int, int, float]] = [
    ("conv", "conv", {"inverse_every": 1}, 1, 10, 1.0),
    ("conv, accumulation, sparse", "conv", {"inverse_every": 3, "warmup_steps": 2}, 2, 10, 1.0),
    ("conv, clip", "conv", {"inverse_every": 1, "clip": 0.2}, 2, 8, 1.0),
    ("inverse every 10", "linear", {"inverse_every": 10}, 1, 25, 1.0),
    ("inverse every 10, warm-up 10", "linear", {"inverse_every": 10, "warmup_steps": 10}, 2, 25, 1.0),
    ("large data meet the clip of 100", "linear", {"inverse_every": 1}, 2, 10, 80.0),
    ("sequences", "sequence", {"inverse_every": 2}, 1, 8, 1.0),
    ("joint norm", "linear", {"inverse_every": 1, "norm": "joint"}, 1, 8, 1.0),
    ("single average", "linear", {"inverse_every": 1, "double_average": False}, 2, 8, 1.0),
    ("ema, identity", "linear", {"inverse_every": 1, "rule": "ema"}, 1, 40, 1.0),
    ("ema, blend", "conv", {"inverse_every": 1, "rule": "ema", "reset": "blend"}, 2, 40, 1.0),
    ("ema, double average", "linear", {"inverse_every": 1, "rule": "ema", "double_average": True}, 2, 8, 1.0),
    ("paper, blend", "linear", {"inverse_every": 1, "rule": "paper", "reset": "blend"}, 1, 30, 3.0),
    ("paper, identity", "linear", {"inverse_every": 1, "rule": "paper"}, 1, 30, 3.0),
    ("code, blend", "linear", {"inverse_every": 1, "reset": "blend"}, 1, 30, 1.0),
]


def run(net: str, options: dict[str, Any], accum: int, steps: int, size: float, lr: float = 0.02,
        dtype: torch.dtype = torch.float64, factors: torch.dtype | None = None) -> dict[str, Any]:  # fmt: skip
    """Train the same weights on the same data by both; the largest relative differences, and the replay itself."""
    rng = np.random.default_rng(3)
    model, layers, shape, out = NETS[net]()
    model = model.to(dtype)
    with torch.no_grad():
        modules = [m for m in model if isinstance(m, nn.Linear | nn.Conv2d)]
        for module, layer in zip(modules, layers, strict=True):
            layer.W = rng.standard_normal(layer.W.shape) / np.sqrt(layer.W.shape[1])
            W = layer.W[:, :-1] if layer.bias else layer.W
            module.weight.copy_(torch.from_numpy(W.copy()).view_as(module.weight))
            if layer.bias:
                assert module.bias is not None
                module.bias.copy_(torch.from_numpy(layer.W[:, -1].copy()))
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    opt = MKOR(model, base=base, factor_dtype=factors, **options)
    names = {"inverse_every": "inv_freq", "warmup_steps": "warmup"}
    given = {names.get(k, k): v for k, v in options.items()}
    given.setdefault("double_average", options.get("rule", "code") == "code")
    theirs = Released(layers, dtype={None: np.float64, torch.float16: np.float16, torch.float32: np.float32}[factors],
                      **given)  # fmt: skip
    worst = {"J": 0.0, "W": 0.0}
    for _ in range(steps):
        xs = size * rng.standard_normal((accum, 5, *shape))
        slopes = rng.standard_normal((accum, 5, *out))
        opt.zero_grad()
        micro = []
        for x, c in zip(xs, slopes, strict=True):
            scale = c.shape[0] * (c.shape[1] if net == "sequence" else 1) * accum
            loss = (model(torch.from_numpy(x).to(dtype)) * torch.from_numpy(c).to(dtype)).sum() / scale
            loss.backward()
            micro.append(replay.passes(layers, x, c / scale))
        opt.step()
        for layer, gradient in zip(layers, theirs.precondition(micro), strict=True):
            replay.sgd(layer, gradient, lr, 0.9)
        for found, layer, module in zip(opt.layers, layers, modules, strict=True):
            for J, key in zip(opt.factors(found.name), "AG", strict=True):
                expected = layer.state[key].astype(np.float64)
                worst["J"] = max(worst["J"], np.abs(J.double().numpy() - expected).max() / np.abs(expected).max())
            parts = [module.weight.detach().flatten(1)] + ([module.bias.detach()[:, None]] if layer.bias else [])
            W = torch.cat(parts, 1).double().numpy()
            worst["W"] = max(worst["W"], np.abs(W - layer.W).max() / np.abs(layer.W).max())
    return {**worst, "resets": theirs.resets, "skipped": opt.skipped}


@pytest.mark.parametrize(
    ("net", "options", "accum", "steps", "size"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_training_runs(net: str, options: dict[str, Any], accum: int, steps: int, size: float) -> None:
    found = run(net, options, accum, steps, size)
    assert found["J"] < 1e-9
    assert found["W"] < 1e-9
    assert found["skipped"] == 0
    if options.get("rule", "code") == "code":
        assert found["resets"] == 0, "no element exceeds 1, so the stabiliser never acts"
    elif steps >= 30:
        assert found["resets"] > 0, "the case must see the stabiliser"


@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize(
    ("dtype", "factors", "bound"),
    [
        (torch.float32, torch.float32, 1e-5),
        (torch.float32, torch.float16, 2.5e-3),
        (torch.float64, torch.float16, 2.5e-3),
    ],
)
def test_lower_precision(net: str, dtype: torch.dtype, factors: torch.dtype, bound: float) -> None:
    """Factors kept in half by both, and rounded once per update; the authors' own half arithmetic reaches 2.5e-3."""
    found = run(net, {"inverse_every": 2, "warmup_steps": 3}, 2, 10, 1.0, dtype=dtype, factors=factors)
    assert found["J"] < bound
    assert found["W"] < bound


def test_the_replays_networks_are_right() -> None:
    """The hand-written backward against torch's, so that the two sides of the comparison are independent and equal."""
    for net in NETS:
        assert run(net, {"inverse_every": 1000}, 1, 3, 1.0)["W"] < 1e-12
