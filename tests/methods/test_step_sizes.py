"""Step sizes in an ordinary script: a schedule may start at zero, and a number is a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curvebench import torch as ours
from curvebench.errors import HyperparameterError

OF_MODEL = ["KFAC", "EKFAC", "MKOR", "MKORH", "Eva", "TrAct", "Muon"]
OF_PARAMETERS = ["LAMB", "DCTAdamW", "MFAC", "MFACPruning", "OrthoGrad"]
OF_CLOSURE = ["AdaHessian", "SophiaH", "Newton", "DiagonalNewton"]
X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 2, (8,), generator=torch.Generator().manual_seed(1))


def prepared(name: str, lr: Any) -> tuple[nn.Sequential, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    make: Callable[..., Any] = getattr(ours, name)
    if name == "Muon":  # its AdamW has a step size of its own
        return model, make(model, lr=lr, adamw_lr=lr)
    return model, make(model if name in OF_MODEL else model.parameters(), lr=lr)


def step(name: str, model: nn.Module, optimizer: Any) -> None:
    def loss() -> torch.Tensor:
        return F.cross_entropy(model(X), Y)

    optimizer.zero_grad()
    if name in OF_CLOSURE:
        optimizer.step(loss)
        return
    value = loss()
    value.backward()
    if name == "MKORH":
        optimizer.report(value)
    optimizer.step()


@pytest.mark.parametrize("name", [*OF_MODEL, *OF_PARAMETERS, *OF_CLOSURE])
def test_a_warm_up_starts_at_zero(name: str) -> None:
    """Nothing moves at zero, and what was learnt meanwhile serves the first real step."""
    model, optimizer = prepared(name, 0.0)
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        step(name, model, optimizer)
    for p, before in zip(model.parameters(), start, strict=True):
        assert torch.equal(p, before)
    for group in getattr(optimizer, "base", optimizer).param_groups:
        group["lr"] = 0.01
    for _ in range(100 if name == "MFACPruning" else 1):  # which looks at gradients first
        step(name, model, optimizer)
    assert all(p.isfinite().all() for p in model.parameters())
    assert any(not torch.equal(p, before) for p, before in zip(model.parameters(), start, strict=True))


@pytest.mark.parametrize("name", [*OF_MODEL, *OF_PARAMETERS, *OF_CLOSURE])
@pytest.mark.parametrize("lr", [torch.tensor(0.1), np.asarray(0.1), "0.1"], ids=["tensor", "array", "text"])
def test_a_step_size_that_is_no_number_is_refused(name: str, lr: Any) -> None:
    with pytest.raises(HyperparameterError, match=r"lr = .*: must be a number in [(\[]0, inf\)"):
        prepared(name, lr)
