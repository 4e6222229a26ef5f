"""Sophia-H by hand, on a quadratic whose Hessian is known, and its bad input."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curvebench.errors import HyperparameterError, MissingGraphError
from curvebench.methods.sophia_h_torch import SophiaH
from curvebench.oracle.standalone_torch import AutogradOracle

LR, B1, B2, GAMMA, EPS, DECAY = 0.05, 0.7, 0.6, 0.5, 1e-3, 0.2


class Saddle:
    """``1/2 theta' A theta`` with a dense, indefinite A over a matrix [2, 2] and a vector [3]."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        a = rng.standard_normal((7, 7))
        self.a = torch.tensor(a + a.T)
        self.parameters = [torch.tensor(rng.standard_normal(s), requires_grad=True) for s in ((2, 2), (3,))]

    def __call__(self) -> Tensor:
        theta = torch.cat([p.reshape(-1) for p in self.parameters])
        return theta @ self.a @ theta / 2

    def optimiser(self, **more: Any) -> SophiaH:
        arguments: dict[str, Any] = {"lr": LR, "betas": (B1, B2), "gamma": GAMMA, "eps": EPS, "weight_decay": DECAY,
                                     "hessian_every": 2, "generator": torch.Generator().manual_seed(3)}  # fmt: skip
        return SophiaH(self.parameters, **{**arguments, **more})


def flat(tensors: list[Tensor]) -> np.ndarray:
    return np.concatenate([t.detach().numpy().reshape(-1) for t in tensors])


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("way", ["closure", "backward"])
def test_the_papers_steps(way: str) -> None:
    saddle, generator = Saddle(), torch.Generator().manual_seed(3)
    optimizer, a = saddle.optimiser(), Saddle().a.numpy()
    x, m, h = flat(saddle.parameters), np.zeros(7), np.zeros(7)
    clipped = 0
    for t in range(6):
        g = a @ x
        m = B1 * m + (1 - B1) * g
        if t % 2 == 0:
            stream = AutogradOracle(saddle.parameters, None, generator).stream("hutchinson")
            z = flat([stream.draw("normal", tuple(p.shape)) for p in saddle.parameters])
            h = B2 * h + (1 - B2) * z * (a @ z)
        ratio = m / np.maximum(GAMMA * h, EPS)
        clipped += int((np.abs(ratio) > 1).sum())
        x = (1 - LR * DECAY) * x - LR * np.clip(ratio, -1, 1)
        if way == "closure":
            optimizer.step(saddle)
        else:
            optimizer.zero_grad()
            saddle().backward(create_graph=optimizer.needs_graph)
            optimizer.step()
        np.testing.assert_allclose(flat(saddle.parameters), x, rtol=1e-12)
    assert 0 < clipped < 42, "some coordinates are clipped, some are not"


def test_a_restored_state_continues_with_the_same_bits() -> None:
    one, two = Saddle(), Saddle()
    first = one.optimiser()
    for _ in range(3):
        first.step(one)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = two.optimiser(generator=torch.Generator().manual_seed(99))
    second.load_state_dict(torch.load(file))
    with torch.no_grad():
        for p, q in zip(two.parameters, one.parameters, strict=True):
            p.copy_(q)
    for _ in range(3):
        first.step(one)
        second.step(two)
    assert np.array_equal(flat(one.parameters), flat(two.parameters))


def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    saddle = Saddle()
    optimizer = saddle.optimiser()
    optimizer.step(saddle)
    before = flat(saddle.parameters)
    optimizer.step(lambda: saddle() * torch.nan)
    assert np.array_equal(flat(saddle.parameters), before)
    assert optimizer.skipped == 1
    optimizer.step(saddle)
    assert not np.array_equal(flat(saddle.parameters), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.5}, r"SophiaH: lr = -0.5: must lie in \[0, inf\)"),
        ({"betas": (1.0, 0.9)}, r"beta1 = 1.0: must lie in \[0, 1\)"),
        ({"betas": (0.9, -0.1)}, r"beta2 = -0.1: must lie in \[0, 1\)"),
        ({"gamma": -1.0}, r"gamma = -1.0: must lie in \(0, inf\)"),
        ({"eps": 0.0}, r"eps = 0.0: must lie in \(0, inf\)"),
        ({"weight_decay": -1.0}, r"weight_decay = -1.0: must lie in \[0, inf\)"),
        ({"hessian_every": 0}, r"hessian_every = 0: must lie in \[1, inf\)"),
        ({"hessian_every": 1.5}, r"hessian_every = 1.5: must be a whole number"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Saddle().optimiser(**options)


def test_bad_parameters_and_a_missing_graph() -> None:
    with pytest.raises(TypeError, match=r"SophiaH: a parameter has dtype torch.int64: must be floating"):
        SophiaH([torch.arange(3)])
    saddle = Saddle()
    saddle().backward()
    with pytest.raises(MissingGraphError, match="create_graph=True"):
        saddle.optimiser().step()


WRONG = [("learning_rate", -0.5), ("b1", 1.0), ("gamma", 0.0), ("hessian_every", 0)]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_bad_options_in_jax(name: str, value: float) -> None:
    from curvebench.methods.sophia_h_jax import sophia_h

    with pytest.raises(HyperparameterError, match=rf"sophia_h: {name} = {value}: must lie in"):
        sophia_h(**{"learning_rate": 0.1, name: value})
