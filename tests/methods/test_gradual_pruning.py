"""Gradual pruning as an optimiser: the schedule, a replay by dense float64 inverses, and what the record says."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curvebench import cards
from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import reference_mfac as reference
from curvebench.methods.gradual_pruning_torch import MFACPruning
from curvebench.procedures.conformance import conformance

X = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()
GIVEN: dict[str, Any] = {
    "lr": 0.1, "momentum": 0.5, "weight_decay": 0.01, "density": 0.25, "prunings": 2, "recomputations": 2,
    "prune_every": 3, "window": 4, "damping": 1e-3,
}  # fmt: skip


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def values(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def loss(module: nn.Module, step: int) -> torch.Tensor:
    rows = slice(8 * (step % 5), 8 * (step % 5) + 8)
    return F.cross_entropy(module(X[rows].to(next(module.parameters()))), Y[rows])


def train(module: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for t in range(first, last):
        optimizer.zero_grad()
        loss(module, t).backward()
        optimizer.step()


@pytest.mark.parametrize("block", [0, 6])
def test_every_step_is_the_replay_by_dense_inverses(block: int) -> None:
    """20 weights are prunable; the 6 biases train on. Removals at densities .25^(1/4), .5, .25^(3/4), .25."""
    module = net()
    optimizer = MFACPruning(module.parameters(), block=block, **GIVEN)
    weights = np.r_[np.arange(12), np.arange(16, 24)]  # 0.weight and 2.weight among 26
    x = values(module).numpy().copy()
    mask, b, rows, removed = np.ones(26), np.zeros(26), [], 0
    for t in range(2 * (2 * 4 + 3) + 4):
        twin = net()
        nn.utils.vector_to_parameters(torch.tensor(x), twin.parameters())
        loss(twin, t).backward()
        g = torch.cat([p.grad.flatten() for p in twin.parameters()]).numpy()  # type: ignore[union-attr]
        looks = t < 22 and t % 11 < 8
        assert optimizer.looking == looks
        if looks:
            rows.append(g)
            if len(rows) == 4:
                removed += 1
                live = weights[mask[weights] > 0]
                inverse = reference.inverse(np.array(rows)[:, live], 1e-3, block or None)
                count = len(live) - (20 - round(20 * (1 - 0.25 ** (removed / 4))))
                drop = np.argsort(reference.obs_scores(x[live], np.diag(inverse)))[:count]
                x[live] = reference.obs_update(inverse, x[live], drop)
                mask[live[drop]] = 0.0
                rows = []
        else:
            b = 0.5 * b + g + 0.01 * x
            x = mask * (x - 0.1 * b)
        train(module, optimizer, t, t + 1)
        assert np.allclose(values(module), x, rtol=1e-7, atol=1e-10), t
    assert removed == 4
    assert optimizer.reached == 0.25
    assert np.count_nonzero(x[weights]) == 5
    assert optimizer.notes() == ["density 0.25 of 20 prunable weights, sparsity 0.75, after 4 of 4 removals"]


@pytest.mark.parametrize("stop", [2, 5, 9, 24])  # in a window, after a removal, between events, after them
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_restored_state_continues_with_the_same_bits(stop: int, dtype: torch.dtype) -> None:
    module, twin = net(dtype), net(dtype)
    optimizer, other = MFACPruning(module.parameters(), **GIVEN), MFACPruning(twin.parameters(), **GIVEN)
    train(module, optimizer, 0, stop)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    twin.load_state_dict(module.state_dict())
    train(module, optimizer, stop, stop + 14)
    train(twin, other, stop, stop + 14)
    assert torch.equal(values(module), values(twin))
    assert optimizer.notes() == other.notes()


def test_a_gradient_that_is_not_finite_takes_no_place_in_the_window() -> None:
    one, two = net(), net()
    a, b = MFACPruning(one.parameters(), **GIVEN), MFACPruning(two.parameters(), **GIVEN)
    for t in range(20):
        if t in (1, 9):
            for p in one.parameters():
                p.grad = torch.full_like(p, torch.nan)
            a.step()
        train(one, a, t, t + 1)
        train(two, b, t, t + 1)
    assert torch.equal(values(one), values(two))
    assert a.notes() == [*b.notes(), "2 steps skipped: the gradient was not finite"]


def test_groups_say_what_is_pruned() -> None:
    module = net()
    groups = [{"params": [module[0].weight], "prune": False}, {"params": [module[0].bias, module[2].bias]},
              {"params": [module[2].weight]}]  # fmt: skip
    optimizer = MFACPruning(groups, **GIVEN)
    train(module, optimizer, 0, 30)
    assert [int((p == 0).sum()) for p in module.parameters()] == [0, 0, 6, 0]
    assert optimizer.notes() == ["density 0.25 of 8 prunable weights, sparsity 0.75, after 4 of 4 removals"]


def test_without_prunable_weights_or_events_it_is_sgd() -> None:
    for given, biases in (({"prunings": 0}, False), ({"prunings": 2}, True)):
        module, twin = net(), net()
        chosen = [[p for p in m.parameters() if not biases or p.dim() == 1] for m in (module, twin)]
        optimizer = MFACPruning(chosen[0], **{**GIVEN, **given})
        train(module, optimizer, 0, 6)
        train(twin, torch.optim.SGD(chosen[1], lr=0.1, momentum=0.5, weight_decay=0.01), 0, 6)
        assert torch.allclose(values(module), values(twin), rtol=1e-12)
        assert "after 0 of" in optimizer.notes()[0]


def test_a_closure_gives_the_loss_and_the_same_steps() -> None:
    one, two = net(), net()
    a, b = MFACPruning(one.parameters(), **GIVEN), MFACPruning(two.parameters(), **GIVEN)
    for t in range(12):
        train(one, a, t, t + 1)
        expected = loss(two, t).item()
        assert b.step(lambda t=t: loss(two, t)).item() == expected
    assert torch.equal(values(one), values(two))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": -0.5}, r"MFACPruning: lr = -0\.5: must lie in \[0, inf\)"),
        ({"density": 0.0}, r"density = 0\.0: must lie in \(0, 1\]"),
        ({"density": 1.5}, r"density = 1\.5: must lie in \(0, 1\]"),
        ({"prunings": -1}, r"prunings = -1: must lie in \[0, inf\)"),
        ({"recomputations": 0}, r"recomputations = 0: must lie in \[1, inf\)"),
        ({"prune_every": 0}, r"prune_every = 0: must lie in \[1, inf\)"),
        ({"window": 2.5}, r"window = 2\.5: must be a whole number"),
        ({"damping": 0.0}, r"damping = 0\.0: must lie in \(0, inf\)"),
        ({"block": -1}, r"block = -1: must lie in \[0, inf\)"),
    ],
)
def test_bad_values_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        MFACPruning(net().parameters(), **given)


def test_dtypes_and_late_groups_are_refused() -> None:
    with pytest.raises(TypeError, match=r"dtype torch\.bfloat16: all must be float32"):
        MFACPruning(net(torch.bfloat16).parameters())
    module = net()
    with pytest.raises(TypeError, match="all must be float64"):
        MFACPruning(itertools.chain(module.parameters(), net(torch.float32).parameters()))
    optimizer = MFACPruning(module.parameters())
    train(module, optimizer, 0, 1)
    with pytest.raises(CurvebenchError, match="cannot be added after the first step"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2).double())]})


def test_conformance() -> None:
    findings = list(conformance(cards.method("mfac-pruning"), "mfac-pruning", "torch"))
    assert [f for f in findings if not f.holds] == []
