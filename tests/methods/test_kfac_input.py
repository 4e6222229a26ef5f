"""K-FAC and EKFAC: bad options, models that they cannot take, curvature that is not finite; and the harness."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.methods import resolve
from curvebench.methods.ekfac_torch import EKFAC
from curvebench.methods.kfac_torch import KFAC
from curvebench.procedures.conformance import conformance

BOTH = pytest.mark.parametrize("method", [KFAC, EKFAC])


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def seeded(*layers: nn.Module) -> nn.Sequential:
    """A model in float64 whose weights do not depend on other tests."""
    model = nn.Sequential(*layers).double()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5, generator=generator)
    return model


def data(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def half_squares(o: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (o - y).square().sum(-1).mean() / 2


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def train(model: nn.Module, opt: Any, steps: range) -> list[float]:
    losses = []
    for t in steps:
        opt.zero_grad()
        outputs = model(data(8, 4, seed=t))
        if opt.fisher != "empirical":
            opt.observe(outputs, "gaussian")
        loss = half_squares(outputs, data(8, 3, seed=1000 + t))
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
    return losses


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": 0.0}, r"KFAC: damping = 0.0: must lie in \(0, inf\)"),
        ({"damping": float("nan")}, "damping = nan"),
        ({"factor_decay": 1.0}, r"factor_decay = 1.0: must lie in \[0, 1\)"),
        ({"factor_every": 0}, "factor_every = 0"),
        ({"inverse_every": 0}, "inverse_every = 0"),
        ({"inverse_every": 2.5}, r"inverse_every = 2.5: must be a whole number in \[1, inf\)"),
        ({"factor_every": 1.5}, "factor_every = 1.5: must be a whole number"),
        ({"kl_clip": -1.0}, "kl_clip = -1.0"),
        ({"solve": "lu"}, "solve = 'lu': must be one of 'eigen', 'inverse'"),
        ({"fisher": "true"}, "fisher = 'true'"),
        ({"loss_reduction": "none"}, "loss_reduction = 'none'"),
        ({"convention": "kfac-jax"}, "convention = 'kfac-jax'"),
        ({"loss_terms": "tokens"}, "loss_terms = 'tokens'"),
        ({"shared": "sum"}, "shared = 'sum'"),
        ({"skip": ["5"]}, "skip: the model has no module named '5'"),
        ({"lr": 0.1}, "lr and momentum are the base optimiser's"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(HyperparameterError, match=message):
        KFAC(model, base=sgd(model), **options)


def test_base_or_step_size_is_needed() -> None:
    with pytest.raises(HyperparameterError, match="pass base"):
        KFAC(nn.Linear(4, 3))
    with pytest.raises(HyperparameterError, match=r"lr = -1.0: must lie in \[0, inf\)"):
        KFAC(nn.Linear(4, 3), lr=-1.0)
    with pytest.raises(HyperparameterError, match="solve = 'inverse': must be one of 'eigen'"):
        EKFAC(nn.Linear(4, 3), lr=0.1, solve="inverse")


def test_tied_weights_are_refused_unless_skipped() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight
    with pytest.raises(CurvebenchError, match="tied weights: '0' and '2' share a parameter"):
        KFAC(model, base=sgd(model))
    assert [layer.name for layer in KFAC(model, base=sgd(model), skip=["2"]).layers] == ["1"]


def test_a_layer_used_twice_in_one_forward_is_refused() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    opt = KFAC(model, base=sgd(model))
    model(torch.ones(2, 4)).sum().backward()
    with pytest.raises(CurvebenchError, match=r"'0' was used 2 times in one forward.*shared='expand'.*skip=\['0'\]"):
        opt.step()


def test_unsupported_layers_are_named_and_keep_their_gradient(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 4, 1, groups=2),
                          nn.Flatten(), nn.Linear(4, 3))  # fmt: skip
    with caplog.at_level(logging.INFO):
        opt = KFAC(model, base=sgd(model))
    assert opt.unsupported == {"0": "Embedding", "1": "LayerNorm", "3": "Conv2d with groups = 2"}
    assert "KFAC: not preconditioned, their gradients go to SGD unchanged: '0' (Embedding)" in caplog.text
    model(torch.tensor([0, 1, 3])).square().sum().backward()
    before = {k: p.grad.clone() for k, p in model.named_parameters()}  # type: ignore[union-attr]
    opt.precondition()
    changed = {k.split(".")[0] for k, p in model.named_parameters() if not torch.equal(p.grad, before[k])}  # type: ignore[arg-type]
    assert changed == {"5"}
    assert opt.notes() == ["not preconditioned, their gradients go to SGD unchanged: '0' (Embedding), "
                           "'1' (LayerNorm), '3' (Conv2d with groups = 2)"]  # fmt: skip


def test_a_model_without_a_supported_layer() -> None:
    with pytest.raises(CurvebenchError, match="no Linear or Conv2d layer"):
        KFAC(nn.LayerNorm(4), lr=0.1)


def test_frozen_and_unused_layers() -> None:
    model = seeded(nn.Linear(4, 4), nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    model.add_module("unused", nn.Linear(2, 2).double())
    opt = KFAC(model, base=sgd(model))
    assert [layer.name for layer in opt.layers] == ["1", "unused"]
    x = data(5, 4)
    half_squares(model[1](model[0](x)), data(5, 3, seed=2)).backward()
    opt.step()
    assert set(opt.layer_state) == {"1"}


def test_statistics_that_were_never_seen() -> None:
    model = seeded(nn.Linear(4, 3))
    opt = KFAC(model, base=sgd(model))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(CurvebenchError, match="no layer was seen in this step: run the model's forward"):
        opt.step()


@pytest.mark.parametrize("fisher", ["mc", "type-2"])
def test_a_missing_observe_raises(fisher: str) -> None:
    model = seeded(nn.Linear(4, 3))
    opt = KFAC(model, base=sgd(model), fisher=fisher)
    half_squares(model(data(5, 4)), data(5, 3, seed=2)).backward()
    with pytest.raises(CurvebenchError, match=r"call opt.observe\(outputs, likelihood\)"):
        opt.step()
    with pytest.raises(CurvebenchError, match="no layer was seen on the way to these outputs"):
        opt.observe(torch.zeros(2, 3))
    with pytest.raises(HyperparameterError, match="likelihood = 'poisson'"):
        opt.observe(torch.zeros(2, 3), "poisson")


@BOTH
def test_non_finite_curvature_skips_the_step_and_is_counted(
    method: type[KFAC], caplog: pytest.LogCaptureFixture
) -> None:
    model = seeded(nn.Linear(4, 3))
    opt = method(model, base=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    train(model, opt, range(2))
    before, factor = weights(model).clone(), opt.factors("0")[0].clone()
    x = data(6, 4)
    x[2, 1] = float("nan")
    opt.zero_grad()
    half_squares(model(x), data(6, 3, seed=2)).backward()
    assert opt.precondition() is False
    opt.base.step()  # a loop that ignores the answer is safe too
    assert opt.skipped == 1
    assert "step 3 skipped: the curvature is not finite" in caplog.text
    assert opt.notes() == ["1 of 3 steps skipped: the curvature was not finite"]
    torch.testing.assert_close(weights(model), before)
    torch.testing.assert_close(opt.factors("0")[0], factor)
    train(model, opt, range(3, 4))
    assert not torch.equal(weights(model), before)
    assert opt.skipped == 1


def test_ekfac_moments_that_overflow_skip_the_step() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    nn.init.constant_(model[0].weight, 1.0)
    opt = EKFAC(model, base=sgd(model))
    (1e15 * model(torch.full((1, 2), 1e15))).sum().backward()
    before = weights(model)
    opt.step()
    assert opt.skipped == 1
    torch.testing.assert_close(weights(model), before)
    assert opt.layer_state == {}


# -- in the harness ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "framework"), [("kfac", "torch"), ("ekfac", "torch"), ("kfac", "jax")])
def test_conformance(name: str, framework: str) -> None:
    findings = list(conformance(resolve(name), name, framework))
    assert [f for f in findings if not f.holds] == []
