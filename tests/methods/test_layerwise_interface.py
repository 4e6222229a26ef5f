"""The constructors' words and defaults, which scripts rely on; what every layer-wise method does with odd models."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from curvebench.errors import CurvebenchError
from curvebench.torch import EKFAC, KFAC, MKOR, MKORH

WORDS: dict[type, dict[str, Any]] = {
    KFAC: {"base": None, "damping": 1e-3, "factor_decay": 0.95, "factor_every": 1, "inverse_every": 10,
           "kl_clip": None, "solve": "eigen", "fisher": "empirical", "loss_reduction": "mean", "convention": "ggn"},
    EKFAC: {"base": None, "damping": 1e-3, "factor_decay": 0.95, "factor_every": 1, "inverse_every": 10,
            "kl_clip": None, "solve": "eigen", "fisher": "empirical", "loss_reduction": "mean", "convention": "ggn"},
    MKOR: {"base": None, "inverse_every": 10, "rule": "code", "reset": "identity", "warmup_steps": 0, "clip": 100.0,
           "loss_reduction": "mean"},
    MKORH: {"base": None, "inverse_every": 10, "rule": "code", "reset": "identity", "warmup_steps": 0, "clip": 100.0,
            "loss_reduction": "mean"},
}  # fmt: skip
ALL = list(WORDS)
each = pytest.mark.parametrize("method", ALL)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def prepared(method: type, model: nn.Module, **options: Any) -> Any:
    return method(model, base=sgd(model), **options)


def take(opt: Any, loss: torch.Tensor) -> None:
    loss.backward()
    if isinstance(opt, MKORH):
        opt.report(loss)
    opt.step()


@each
def test_words_defaults_and_order(method: type) -> None:
    """First the model, then exactly these in this order, keyword-only; further words follow and have defaults."""
    model, *rest = inspect.signature(method).parameters.values()
    assert (model.name, model.kind, model.default) == ("model", model.POSITIONAL_OR_KEYWORD, model.empty)
    assert all(p.kind is p.KEYWORD_ONLY for p in rest)
    assert {p.name: p.default for p in rest[: len(WORDS[method])]} == WORDS[method]
    assert [p.name for p in rest[: len(WORDS[method])]] == list(WORDS[method])
    assert all(p.default is not p.empty for p in rest)
    with pytest.raises(TypeError, match="positional"):
        method(nn.Linear(2, 2), sgd(nn.Linear(2, 2)))


@each
def test_factors_have_the_parameters_dtype(method: type) -> None:
    for dtype in (torch.float32, torch.float64):
        model = nn.Linear(3, 2).to(dtype)
        opt = prepared(method, model)
        take(opt, model(torch.ones(4, 3, dtype=dtype)).square().mean())
        assert {X.dtype for X in opt.factors("")} == {dtype}


def test_half_precision_factors_on_request() -> None:
    model = nn.Linear(3, 2)
    for method in (MKOR, MKORH):
        opt = prepared(method, model, factor_dtype=torch.float16)
        take(opt, model(torch.ones(4, 3)).square().mean())
        assert {X.dtype for X in opt.factors("")} == {torch.float16}
        opt.detach()


@each
def test_every_torch_optimiser_is_a_base(method: type) -> None:
    for base in (torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop):
        model = nn.Linear(3, 2)
        before = copy.deepcopy(model.state_dict())
        opt = method(model, base=base(model.parameters(), lr=0.1))
        take(opt, model(torch.ones(4, 3)).square().mean())
        assert opt.param_groups is opt.base.param_groups
        assert not torch.equal(model.weight, before["weight"])


@each
def test_unsupported_layers_are_named_and_their_gradient_is_the_bases(method: type) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.grouped = nn.Conv1d(4, 4, 1)
            self.pairs = nn.Conv2d(4, 4, 1, groups=2)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.recurrent = nn.LSTM(4, 4, batch_first=True)
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.grouped(self.embed(x).transpose(1, 2))
            h = self.pairs(h[..., None])[..., 0].transpose(1, 2)
            h = self.recurrent(h + self.attention(h, h, h, need_weights=False)[0])[0]
            out: torch.Tensor = self.head(self.norm(h))
            return out

    torch.manual_seed(0)
    model = Model()
    opt = prepared(method, model)
    assert [layer.name for layer in opt.layers] == ["head"]
    assert opt.unsupported == {
        "embed": "Embedding", "grouped": "Conv1d", "pairs": "Conv2d with groups = 2",
        "attention": "MultiheadAttention", "recurrent": "LSTM", "norm": "LayerNorm",
        "attention.out_proj": "the output projection of nn.MultiheadAttention, which is never called as a layer",
    }  # fmt: skip
    assert any("not preconditioned, their gradients go to SGD unchanged: " in note for note in opt.notes())
    loss = model(torch.tensor([[0, 1, 2], [3, 3, 1]])).square().mean()
    loss.backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    if isinstance(opt, MKORH):
        opt.report(loss)
    opt.precondition()
    for name, p in model.named_parameters():
        if not name.startswith("head"):
            assert torch.equal(p.grad, before[name])  # type: ignore[arg-type]  # every one has a gradient


@each
def test_tied_weights_and_double_use(method: type) -> None:
    tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    tied[2].weight = tied[0].weight
    with pytest.raises(CurvebenchError, match=r"tied weights: '0' and '2' share a parameter.*skip=\['2'\]"):
        prepared(method, tied)
    assert [layer.name for layer in prepared(method, tied, skip=["2"]).layers] == ["1"]
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, nn.Tanh(), layer)
    opt = prepared(method, twice)
    with pytest.raises(CurvebenchError, match="'0' was used 2 times in one forward"):
        take(opt, twice(torch.ones(2, 4)).square().mean())
    opt.detach()
    expanded = prepared(method, twice, shared="expand")
    take(expanded, twice(torch.ones(2, 4)).square().mean())
    assert set(expanded.layer_state) == {"0"}


@each
def test_a_layer_without_gradient_is_left_out(method: type) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    opt = prepared(method, model)
    loss = model[1](torch.ones(4, 3)).square().mean()
    take(opt, loss)
    assert set(opt.layer_state) == {"1"}
    assert model[0].weight.grad is None


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_curvature_that_is_not_finite_skips_the_step_with_a_count(method: type, bad: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    opt = prepared(method, model, inverse_every=1)
    for _ in range(2):
        opt.zero_grad()
        take(opt, model(torch.ones(4, 3)).square().mean())
    state = copy.deepcopy(opt.state_dict()["layers"])
    weights = copy.deepcopy(model.state_dict())
    opt.zero_grad()
    take(opt, model(torch.full((4, 3), bad)).square().mean())
    assert opt.skipped == 1
    assert any("1 of 3 steps skipped: the curvature was not finite" in note for note in opt.notes())
    assert all(torch.equal(p, weights[name]) for name, p in model.state_dict().items())
    for name, entry in state.items():
        for key, value in entry.items():
            now = opt.layer_state[name][key]
            assert torch.equal(now, value) if isinstance(value, torch.Tensor) else now == value


@each
def test_weights_that_are_not_floating_are_refused(method: type) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, dtype=torch.complex64)

    with pytest.raises(TypeError, match=r"the weight of 'layer' has dtype torch.complex64: must be floating"):
        prepared(method, Odd())


@each
def test_numbers_may_be_numpys(method: type) -> None:
    """What is read from an ``.npz`` file is a NumPy scalar."""
    given: dict[str, Any] = {"inverse_every": np.int64(2)}
    given |= {"damping": np.float32(0.5)} if issubclass(method, KFAC) else {"clip": np.float32(50), "reset": "blend"}
    ends = []
    for options in (given, {k: v.item() if isinstance(v, np.generic) else v for k, v in given.items()}):
        model = nn.Linear(4, 3)
        nn.init.constant_(model.weight, 0.1)
        nn.init.zeros_(model.bias)
        opt = prepared(method, model, **options)
        for step in range(3):
            opt.zero_grad()
            take(opt, model(torch.arange(8.0).reshape(2, 4) + step).square().mean())
        ends.append(model.weight.detach())
    assert torch.equal(*ends)


@each
@pytest.mark.parametrize("through", ["model", "base"])
@pytest.mark.parametrize("to_none", [True, False])
def test_statistics_of_gradients_that_were_thrown_away_are_forgotten(method: type, through: str, to_none: bool) -> None:
    """A loop that drops a batch calls ``model.zero_grad()``; what remains is one batch, not two micro-batches."""
    ends = []
    for dropped in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
        opt = prepared(method, model, inverse_every=1)
        for _ in range(3):
            batch, other = torch.randn(2, 6, 4, dtype=torch.float64)
            if dropped:
                model(other).square().mean().backward()
                (model if through == "model" else opt.base).zero_grad(set_to_none=to_none)
            take(opt, model(batch).square().mean())
            model.zero_grad()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)
