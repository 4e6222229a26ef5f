"""AdaHessian's signature, and what ordinary loops rely on: options of torch's optimisers, precision, memory, skips."""

from __future__ import annotations

import copy
import inspect
import logging
import weakref
from typing import Any

import jax.numpy as jnp
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import curvebench.torch
from curvebench.errors import CurvebenchError, HyperparameterError, MissingGraphError
from curvebench.methods.adahessian_torch import AdaHessian
from curvebench.run.execute import execute

pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")

X = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 2, (8,), generator=torch.Generator().manual_seed(1))


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def loss_of(module: nn.Module) -> Tensor:
    return F.cross_entropy(module(X.to(next(module.parameters()))), Y)


def make(params: Any, **options: Any) -> AdaHessian:
    return AdaHessian(params, generator=torch.Generator().manual_seed(5), **{"lr": 0.1, **options})


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def test_the_constructors_words_and_defaults_stay() -> None:
    assert curvebench.torch.AdaHessian is AdaHessian
    parameters = list(inspect.signature(AdaHessian).parameters.values())
    fixed = {
        "lr": 0.15, "betas": (0.9, 0.999), "eps": 1e-4, "weight_decay": 0.0, "hessian_power": 1.0,
        "averaging": "conv", "hessian_every": 1, "generator": None,
    }  # fmt: skip
    assert parameters[0].name == "params"
    assert parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {p.name: p.default for p in parameters[1 : len(fixed) + 1]} == fixed
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[1:])


def test_maximize_climbs_the_mirrored_path() -> None:
    down, up = net(), net()
    one, other = make(down.parameters()), make(up.parameters(), maximize=True)
    for _ in range(4):
        one.step(lambda: loss_of(down))
        other.step(lambda: -loss_of(up))
    assert torch.equal(flat(down), flat(up))


def test_block_sizes_may_be_a_list() -> None:
    a, b = net(), net()
    one, other = make(a.parameters(), averaging=[1, 2, 1, 1]), make(b.parameters(), averaging=(1, 2, 1, 1))
    one.step(lambda: loss_of(a))
    other.step(lambda: loss_of(b))
    assert torch.equal(flat(a), flat(b))


def test_schedulers_and_accumulated_gradients_work() -> None:
    """Two half batches, each loss halved, are the whole batch: gradient and Hessian are sums."""
    whole, parts = net(), net()
    one, other = make(whole.parameters()), make(parts.parameters())
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 2, 0.1) for o in (one, other)]
    for _ in range(4):
        one.zero_grad()
        loss_of(whole).backward(create_graph=one.needs_graph)
        one.step()
        other.zero_grad()
        for half in (slice(0, 4), slice(4, 8)):
            (F.cross_entropy(parts(X[half]), Y[half]) / 2).backward(create_graph=other.needs_graph)
        other.step()
        for scheduler in schedulers:
            scheduler.step()
    torch.testing.assert_close(flat(whole), flat(parts), rtol=1e-10, atol=1e-13)
    assert one.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_needs_graph_says_when() -> None:
    module = net()
    optimizer = make(module.parameters(), hessian_every=3)
    seen = []
    for _ in range(7):
        optimizer.zero_grad()
        seen.append(optimizer.needs_graph)
        loss_of(module).backward(create_graph=optimizer.needs_graph)
        optimizer.step()
    assert seen == [True, False, False, True, False, False, True]
    loss_of(module).backward()
    optimizer.step()
    optimizer.step()
    with pytest.raises(MissingGraphError):
        optimizer.step()


@pytest.mark.parametrize("way", ["backward", "closure", "closure with backward"])
def test_the_graph_is_gone_after_the_step_though_nobody_clears_the_gradients(way: str) -> None:
    """p.grad with a graph is a cycle that no garbage collector sees: every step would leak its activations."""
    module = net()
    optimizer = make(module.parameters())
    kept: list[weakref.ref[Any]] = []

    class Box:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def pack(tensor: Tensor) -> Box:
        box = Box(tensor.detach())  # an output with its history would be a cycle of its own
        kept.append(weakref.ref(box))
        return box

    def closure() -> Tensor:
        loss = loss_of(module)
        if way != "closure":
            loss.backward(create_graph=True)
        return loss

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        if way == "backward":
            closure()
            optimizer.step()
        else:
            optimizer.step(closure)
    assert kept
    assert not [ref for ref in kept if ref() is not None]
    if way != "closure":
        assert all(p.grad is not None and not p.grad.requires_grad for p in module.parameters())


class Twice(nn.Module):
    """A layer used twice, or two layers with one weight."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 3, bias=False, dtype=torch.float64)
        self.second = nn.Linear(3, 3, bias=False, dtype=torch.float64) if tied else self.first
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def test_tied_weights_and_a_module_used_twice_are_one_parameter_with_one_hessian() -> None:
    ends = []
    for tied in (True, False):
        module = Twice(tied)
        assert len(list(module.parameters())) == 1
        optimizer = make(module.parameters())
        for _ in range(3):
            optimizer.step(lambda module=module: loss_of(module))
        ends.append(flat(module))
    assert torch.equal(*ends)
    W = Twice(True).first.weight
    optimizer = make([W], lr=1e-12, betas=(0.0, 0.0))
    z = torch.ones_like(W)
    optimizer.step(lambda: F.cross_entropy(torch.tanh(X @ W.T) @ W.T, Y), probes=[z])
    H = torch.autograd.functional.hessian(lambda w: F.cross_entropy(torch.tanh(X @ w.T) @ w.T, Y), W.detach())
    torch.testing.assert_close(optimizer.state[W]["v"].sqrt(), (H * z).sum((2, 3)).abs(), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters:UserWarning")
def test_a_parameter_given_twice_is_refused() -> None:
    p = torch.ones(2, requires_grad=True)
    with pytest.raises(CurvebenchError, match="a parameter is given twice: tied weights count once"):
        AdaHessian([p, p])


# -- precision ---------------------------------------------------------------------------------------------------------


def test_bfloat16_has_float32_moments_and_follows_the_float32_run() -> None:
    """Every step is float32 arithmetic on bfloat16 gradients; only the parameters are rounded (8 bits: 0.4 %)."""
    half, single = net(torch.bfloat16), net(torch.bfloat16).float()
    options = {"lr": 0.02, "eps": 1e-2, "weight_decay": 0.1, "hessian_every": 2}
    one, other = make(half.parameters(), **options), make(single.parameters(), **options)
    for _ in range(6):
        one.step(lambda: loss_of(half))
        other.step(lambda: loss_of(single))
    state = one.state[next(half.parameters())]
    assert {state["m"].dtype, state["v"].dtype} == {torch.float32}
    assert all(p.dtype == torch.bfloat16 for p in half.parameters())
    assert tiny.relative([flat(half).float()], [flat(single)]) < 0.03


def test_the_average_of_squares_moves_in_bfloat16_although_its_decay_rounds_to_one() -> None:
    assert torch.tensor(0.999, dtype=torch.bfloat16) == 1
    p = torch.full((4,), 2.0, dtype=torch.bfloat16, requires_grad=True)
    optimizer = make([p], lr=1e-30)
    for _ in range(300):
        optimizer.step(lambda: (p * p).sum())
        p.grad = None
    v = optimizer.state[p]["v"]
    torch.testing.assert_close(v, torch.full((4,), 4 * (1 - 0.999**300)), rtol=1e-4, atol=0)


def test_a_saved_bfloat16_run_continues_bit_identically() -> None:
    whole, half = net(torch.bfloat16), net(torch.bfloat16)
    first, second = make(whole.parameters(), hessian_every=2), make(half.parameters(), hessian_every=2)
    for _ in range(3):
        first.step(lambda: loss_of(whole))
        second.step(lambda: loss_of(half))
    saved = copy.deepcopy(second.state_dict())
    resumed = copy.deepcopy(half)
    third = make(resumed.parameters(), hessian_every=2)
    third.load_state_dict(saved)
    for _ in range(4):
        first.step(lambda: loss_of(whole))
        third.step(lambda: loss_of(resumed))
    assert torch.equal(flat(whole), flat(resumed))
    assert torch.equal(first.state[next(whole.parameters())]["v"], third.state[next(resumed.parameters())]["v"])


def test_parameters_of_several_dtypes_step_together() -> None:
    module = nn.Sequential(nn.Linear(3, 4).bfloat16(), nn.Tanh(), nn.Linear(4, 2))

    def closure() -> Tensor:
        return F.cross_entropy(module[2](module[1](module[0](X.bfloat16())).float()), Y)

    optimizer = make(module.parameters(), lr=0.05)
    start = closure().item()
    for _ in range(5):
        optimizer.step(closure)
    assert closure().item() < start
    assert [p.dtype for p in module.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2


def test_bfloat16_autocast_over_float32_parameters_steps() -> None:
    module = net(torch.float32)
    optimizer = make(module.parameters(), lr=0.05)

    def closure() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(module)

    start = closure().item()
    for _ in range(5):
        optimizer.step(closure)
    assert closure().item() < start


# -- skipped steps -----------------------------------------------------------------------------------------------------


def test_a_step_with_non_finite_curvature_changes_nothing_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """|p|^1.5 at 0: the gradient is 0, the second derivative infinite."""
    p, q = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = make([p, q], hessian_every=1)

    def closure(good: bool) -> Tensor:
        return (q * q).sum() + (p * p if good else p.abs() ** 1.5).sum()

    optimizer.step(lambda: closure(True))
    before = copy.deepcopy(optimizer.state_dict()["state"])
    values = q.detach().clone()
    with caplog.at_level(logging.WARNING, logger="curvebench.methods"):
        optimizer.step(lambda: closure(False))
    assert "AdaHessian: step 2 skipped: the gradient or H z is not finite" in caplog.text
    assert torch.equal(q, values)
    for i in (0, 1):
        assert all(torch.equal(torch.as_tensor(before[i][k]), torch.as_tensor(optimizer.state_dict()["state"][i][k]))
                   for k in before[i])  # fmt: skip
    assert optimizer.skipped == 1
    assert optimizer.notes() == ["1 of 2 steps skipped: the gradient or H z was not finite"]
    again = make([p, q])
    again.load_state_dict(optimizer.state_dict())
    assert again.skipped == 1
    optimizer.step(lambda: closure(True))
    assert (q < values).all(), "and it goes on"


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e30])
def test_non_finite_gradients_and_squares_that_overflow_are_skipped_too(scale: float) -> None:
    p = torch.ones(2, requires_grad=True)
    optimizer = make([p])
    optimizer.step(lambda: scale * (p * p).sum())
    assert (optimizer.skipped, p.tolist()) == (1, [1, 1])
    assert not optimizer.state


def test_the_record_counts_skipped_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from curvebench.oracle.torch import Point

    hvp, asked = Point.hvp, []

    def broken(self: Point, vector: Any) -> list[Tensor]:
        asked.append(1)
        return [hz * float("nan") if len(asked) % 3 == 0 else hz for hz in hvp(self, vector)]

    monkeypatch.setattr(Point, "hvp", broken)
    out = execute(tiny.run_spec("adahessian", steps=7))
    assert "2 of 7 steps skipped: the gradient or H z was not finite" in out["provenance"]["notes"]
    assert out["status"] in {"budget", "reached"}


def test_the_record_of_jax_counts_them_too_and_the_twins_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of steps 0 and 3 are not finite: both skip them, wait for the first Hessian, and go the same way."""
    from curvebench.oracle import jax as oracle_jax
    from curvebench.oracle import torch as oracle_torch

    one, other = oracle_torch.Point.hvp, oracle_jax.Point.hvp

    def factor(step: Any, where: Any) -> Any:
        return where((step == 0) | (step == 3), float("inf"), 1.0)

    def broken(self: Any, vector: Any) -> Any:
        return [hz * factor(self._oracle.step, lambda c, a, b: a if c else b) for hz in one(self, vector)]

    def broken_jax(self: Any, vector: Any) -> Any:
        scale = factor(self._oracle.step, jnp.where)
        return {name: hz * scale for name, hz in other(self, vector).items()}

    monkeypatch.setattr(oracle_torch.Point, "hvp", broken)
    monkeypatch.setattr(oracle_jax.Point, "hvp", broken_jax)
    ends = []
    for framework in tiny.FRAMEWORKS:
        spec = tiny.run_spec("adahessian", framework=framework, draws="reference", lr=0.1, hessian_every=1, steps=8)
        running = tiny.engine(spec, tiny.mlp(0.1, batch=4))
        start = tiny.parameters(running)
        for step in range(8):
            running.step(step, float("inf"))
            if step == 0:
                assert tiny.relative(start, tiny.parameters(running)) == 0
        assert running.notes() == ["2 of 8 steps skipped: the gradient or H z was not finite"]
        ends.append(tiny.parameters(running))
    assert tiny.relative(*ends) < 1e-9


def test_a_list_of_the_wrong_probes_is_an_error_and_words_of_groups_are_checked() -> None:
    module = net()
    with pytest.raises(ValueError, match="zip"):
        make(module.parameters()).step(lambda: loss_of(module), probes=[torch.ones(4, 3)])
    with pytest.raises(HyperparameterError, match="averaging = 'rows': must be one of"):
        AdaHessian([{"params": list(module.parameters()), "averaging": "rows"}])
