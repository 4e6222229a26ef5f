"""``convention='kfac-pytorch'`` against a replay in NumPy of that library's formulas: convolutions with stride and
padding, layers without bias, the clip, factors and inverses not renewed every step, both solves, training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import replay
import torch
from test_mkor_replay import NETS
from torch import nn

from curvebench.methods.kfac_torch import KFAC

Array = np.ndarray


class Library:
    """kfac-pytorch's step, written from its formulas, in float64 throughout."""

    def __init__(self, layers: list[replay.Layer], *, damping: float, decay: float, factor_every: int,
                 inverse_every: int, kl_clip: float | None, solve: str, lr: float) -> None:  # fmt: skip
        self.layers, self.damping, self.decay, self.lr = layers, damping, decay, lr
        self.factor_every, self.inverse_every, self.kl_clip, self.solve = factor_every, inverse_every, kl_clip, solve
        self.step = 0
        self.nus: list[float] = []
        for layer in layers:
            o, i = layer.W.shape
            layer.state = {"A": np.eye(i), "G": np.eye(o)}

    def precondition(self, seen: list[tuple[Array, Array]]) -> list[Array]:
        for layer, (a, g) in zip(self.layers, seen, strict=True):
            if self.step % self.factor_every == 0:
                rows = replay.ones(a, layer.bias)
                positions = a.shape[1] if layer.kernel is not None else 1
                U, g_rows = rows.reshape(-1, rows.shape[-1]) / positions, g.reshape(-1, g.shape[-1]) / positions
                n = len(U)
                for key, new in (("A", U.T @ U / n), ("G", g_rows.T @ g_rows / n)):
                    layer.state[key] = self.decay * layer.state[key] + (1 - self.decay) * new
            if self.step % self.inverse_every == 0:
                for key in "AG":
                    X = layer.state[key]
                    if self.solve == "eigen":
                        values, layer.state[f"Q{key}"] = np.linalg.eigh(X)
                        layer.state[f"d{key}"] = np.maximum(values, 0)
                    else:
                        layer.state[f"i{key}"] = np.linalg.inv(X + self.damping * np.eye(len(X)))
        self.step += 1
        gradients, directions = [], []
        for layer, (a, g) in zip(self.layers, seen, strict=True):
            W, s = np.einsum("nto,nti->oi", g, replay.ones(a, layer.bias)), layer.state
            if self.solve == "eigen":
                inner = (s["QG"].T @ W @ s["QA"]) / (np.outer(s["dG"], s["dA"]) + self.damping)
                P = s["QG"] @ inner @ s["QA"].T
            else:
                P = s["iG"] @ W @ s["iA"]
            gradients.append(W)
            directions.append(P)
        nu = 1.0
        if self.kl_clip is not None:
            change = sum(float((P * W).sum()) * self.lr**2 for P, W in zip(directions, gradients, strict=True))
            nu = min(1.0, float(np.sqrt(self.kl_clip / abs(change))))
        self.nus.append(nu)
        return [nu * P for P in directions]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("conv", {}),
    ("conv", {"solve": "inverse"}),
    ("conv", {"kl_clip": 1e-3}),
    ("conv", {"solve": "inverse", "kl_clip": 1e-3, "factor_every": 2, "inverse_every": 4}),
    ("conv", {"factor_every": 3, "inverse_every": 3}),
    ("conv", {"factor_every": 2, "inverse_every": 5, "damping": 0.1}),
    ("conv", {"factor_every": 1, "inverse_every": 10, "kl_clip": 1e-4}),
    ("linear", {"kl_clip": 1e-3}),
    ("linear", {"solve": "inverse", "factor_every": 2, "inverse_every": 2}),
    ("linear", {"factor_every": 10, "inverse_every": 10}),
    ("sequence", {"kl_clip": 1e-3, "factor_every": 2, "inverse_every": 6}),
    ("sequence", {"solve": "inverse", "factor_decay": 0.5}),
]


def case(net: str, options: dict[str, Any], momentum: float) -> tuple[float, float, list[float]]:
    """Largest relative differences of factors and weights over 12 steps of training, and the clip's scales."""
    rng = np.random.default_rng(5)
    model, layers, shape, out = NETS[net]()
    model = model.double()
    modules = [m for m in model if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for module, layer in zip(modules, layers, strict=True):
            layer.W = rng.standard_normal(layer.W.shape) / np.sqrt(layer.W.shape[1])
            W = layer.W[:, :-1] if layer.bias else layer.W
            module.weight.copy_(torch.from_numpy(W.copy()).view_as(module.weight))
            if module.bias is not None:
                module.bias.copy_(torch.from_numpy(layer.W[:, -1].copy()))
    given = {"damping": 0.003, "factor_decay": 0.95, "factor_every": 1, "inverse_every": 1, "kl_clip": None,
             "solve": "eigen", **options}  # fmt: skip
    lr = 0.1
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    opt = KFAC(model, base=base, convention="kfac-pytorch", **given)
    theirs = Library(layers, decay=given.pop("factor_decay"), lr=lr, **given)
    factors = weights = 0.0
    for _ in range(12):
        x, c = rng.standard_normal((5, *shape)), rng.standard_normal((5, *out))
        scale = c.shape[0] * (c.shape[1] if net == "sequence" else 1)
        opt.zero_grad()
        (0.3 * (model(torch.from_numpy(x)) * torch.from_numpy(c)).sum() / scale).backward()
        directions = theirs.precondition(replay.passes(layers, x, 0.3 * c / scale))
        opt.step()
        for found, module, layer, P in zip(opt.layers, modules, layers, directions, strict=True):
            replay.sgd(layer, P, lr, momentum)
            for X, key in zip(opt.factors(found.name), "AG", strict=True):
                difference = np.abs(X.numpy() - layer.state[key]).max() / np.abs(layer.state[key]).max()
                factors = max(factors, float(difference))
            parts = [module.weight.detach().flatten(1)] + ([module.bias.detach()[:, None]] if layer.bias else [])
            W = torch.cat(parts, 1).numpy()
            weights = max(weights, float(np.abs(W - layer.W).max() / np.abs(layer.W).max()))
    return factors, weights, theirs.nus


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("net", "options"), CASES, ids=[f"{net} {options}" for net, options in CASES])
def test_training_runs(net: str, options: dict[str, Any], momentum: float) -> None:
    factors, weights, nus = case(net, options, momentum)
    assert factors < 1e-10
    assert weights < 1e-8  # eigenbases of nearly equal eigenvalues, over twelve steps of division by the damping
    assert (min(nus) < 1) is ("kl_clip" in options), "the case must see the clip act"
