"""M-FAC as a pruner: what it removes, how the rest moves, what it keeps and refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import reference_mfac as reference
from curvebench.methods.mfac_pruning_torch import MFACPruner, schedule

X = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] > 0).long()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def values(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def weights(module: nn.Sequential) -> list[nn.Parameter]:
    return [module[0].weight, module[2].weight]  # type: ignore[list-item]


def observe(module: nn.Module, pruner: MFACPruner, count: int) -> np.ndarray:
    rows = []
    for t in range(count):
        module.zero_grad()
        F.cross_entropy(module(X[4 * t : 4 * t + 4]), Y[4 * t : 4 * t + 4]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in weights(module)]).numpy())  # type: ignore[arg-type, union-attr]
        assert pruner.observe()
    return np.array(rows)


@pytest.mark.parametrize("block", [None, 6])
def test_pruning_twice_is_the_reference_on_what_is_left(block: int | None) -> None:
    module = net()
    bias = module[0].bias.clone()
    pruner = MFACPruner(weights(module), window=6, damping=1e-3, block=block)
    live = np.arange(20)
    w = torch.cat([p.detach().flatten() for p in weights(module)]).numpy().copy()
    for density, left in ((0.7, 14), (0.25, 5)):
        G = observe(module, pruner, 6)[:, live]
        inverse = reference.inverse(G, 1e-3, block)
        scores = reference.obs_scores(w[live], np.diag(inverse))
        assert np.allclose(pruner.scores(), scores, rtol=1e-8)
        drop = np.argsort(scores)[: len(live) - left]
        w[live] = reference.obs_update(inverse, w[live], drop)
        live = np.delete(live, drop)
        pruner.prune(density)
        assert np.allclose(torch.cat([p.detach().flatten() for p in weights(module)]), w, rtol=1e-8)
        assert pruner.density == left / 20
    assert np.array_equal(np.flatnonzero(w), live)
    assert torch.equal(module[0].bias, bias)


def test_masks_hold_against_the_optimiser() -> None:
    module = net()
    pruner = MFACPruner(weights(module), window=4, damping=1e-3)
    observe(module, pruner, 4)
    pruner.prune(0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(X), Y).backward()
        optimizer.step()
        assert any((p.detach()[~mask] != 0).any() for p, mask in zip(pruner.params, pruner.masks, strict=True))
        pruner.apply_masks()
        assert all((p.detach()[~mask] == 0).all() for p, mask in zip(pruner.params, pruner.masks, strict=True))
    assert sum(int((p != 0).sum()) for p in pruner.params) == 10


def test_gradual_pruning_reaches_the_density() -> None:
    module = net()
    pruner = MFACPruner(weights(module), window=5, damping=1e-3, block=None)
    seen = []
    batch = iter(range(10**6))

    def closure() -> torch.Tensor:
        seen.append(pruner.density)
        rows = torch.arange(4) + 4 * (next(batch) % 10)
        return F.cross_entropy(module(X[rows]), Y[rows])

    pruner.gradual(0.25, 3, closure)
    assert pruner.density == 0.25
    assert seen == [1.0] * 5 + [0.65] * 5 + [0.4] * 5  # 20 weights: 12.6 and 7.9 are left


def test_schedule() -> None:
    assert np.allclose(schedule(1.0, 0.25, 4), [0.25**0.25, 0.5, 0.25**0.75, 0.25])
    assert schedule(0.5, 0.1, 1) == [0.1]
    with pytest.raises(HyperparameterError, match=r"target = 0\.6: must lie in \(0, 0\.5\]"):
        schedule(0.5, 0.6, 2)
    with pytest.raises(HyperparameterError, match="steps = 0"):
        schedule(1.0, 0.5, 0)


def test_the_pruner_skips_what_is_not_finite_and_refuses_too_little() -> None:
    module = net()
    pruner = MFACPruner(weights(module), window=4)
    observe(module, pruner, 3)
    module[0].weight.grad[0, 0] = torch.nan  # type: ignore[index]
    assert not pruner.observe()
    assert (pruner.skipped, pruner.observed) == (1, 3)
    with pytest.raises(CurvebenchError, match=r"3 of 4 gradients have been observed: call observe\(\)"):
        pruner.prune(0.5)
    with pytest.raises(HyperparameterError, match=r"density = 1\.5: must lie in \[0, 1\]"):
        pruner.prune(1.5)
    module[0].weight.grad[0, 0] = 0.0  # type: ignore[index]
    assert pruner.observe()
    with pytest.raises(CurvebenchError, match="4 gradients have been observed: prune before"):
        pruner.observe()
    with pytest.raises(CurvebenchError, match="4 gradients in a row are not finite"):
        MFACPruner(weights(module), window=4).gradual(0.5, 1, lambda: module(X).sum() * torch.nan)


def test_the_pruner_is_restored() -> None:
    module = net()
    pruner = MFACPruner(weights(module), window=4, damping=1e-3)
    observe(module, pruner, 4)
    pruner.prune(0.6)
    observe(module, pruner, 2)
    twin = copy.deepcopy(module)
    other = MFACPruner(weights(twin), window=4, damping=1e-3)
    other.load_state_dict(copy.deepcopy(pruner.state_dict()))
    for m, p in ((module, pruner), (twin, other)):
        observe(m, p, 2)
        p.prune(0.2)
    assert torch.equal(values(module), values(twin))
    assert other.density == 0.2
    with pytest.raises(CurvebenchError, match="other parameters"):
        MFACPruner([module[0].weight]).load_state_dict(pruner.state_dict())


def test_the_pruner_refuses_bad_arguments() -> None:
    p = nn.Parameter(torch.ones(2))
    for given_, message in (
        ({"window": 0}, "window = 0"), ({"damping": 0.0}, r"damping = 0\.0"), ({"block": 0}, "block = 0"),
        ({"window": 2.5}, r"window = 2\.5: must be a whole number"), ({"block": 1.5}, r"block = 1\.5: must be a whole"),
    ):  # fmt: skip
        with pytest.raises(HyperparameterError, match=message):
            MFACPruner([p], **given_)  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match="at least one parameter"):
        MFACPruner([])
    with pytest.raises(CurvebenchError, match="given twice"):
        MFACPruner([p, p])
    with pytest.raises(TypeError, match=r"dtype torch\.int64"):
        MFACPruner([torch.ones(2, dtype=torch.int64)])
