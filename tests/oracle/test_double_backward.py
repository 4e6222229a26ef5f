"""Models whose kernels have no second derivative: attention is switched and noted, or refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from curvebench import cards
from curvebench.errors import CurvebenchError
from curvebench.methods.adahessian_torch import AdaHessian
from curvebench.oracle.double_backward_torch import ATTENTION_NOTE, explained
from curvebench.oracle.torch import Objective, TorchOracle
from curvebench.spec import Query

pytestmark = pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
MATH = r"run its forward under torch.nn.attention.sdpa_kernel\(torch.nn.attention.SDPBackend.MATH\)"


class Attention(nn.Module):
    """Self-attention by hand over ``[batch, 5, 8]``, 2 heads, dropout 0."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(mixed.mean(1))


class Encoder(nn.Module):
    """torch's own layer, in training mode, dropout 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x).mean(1))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(x).mean(1))


X = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 1])
both = pytest.mark.parametrize("make", [Attention, Encoder])


def built(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return make()


def oracle_of(module: nn.Module, *needs: Query) -> TorchOracle:
    oracle = TorchOracle(Objective(module, F.cross_entropy, "categorical"), needs)
    oracle.begin_step(0, (X, Y))
    return oracle


@both
def test_queries_of_second_derivatives_are_those_of_the_exact_matrices(make: Callable[[], nn.Module]) -> None:
    module = built(make).double()
    oracle = oracle_of(module, Query.GRADIENT, Query.HVP, Query.GGNVP, Query.JVP)
    oracle.batch = (X.double(), Y)
    params = {n: p.detach() for n, p in module.named_parameters()}
    v = [torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(2)) for p in params.values()]

    def outputs(p: dict[str, Tensor]) -> Tensor:
        return functional_call(module, p, (X.double(),))

    def along(f: Callable[[dict[str, Tensor]], Any]) -> Any:
        return torch.func.jvp(f, (params,), (dict(zip(params, v, strict=True)),))[1]

    def loss(p: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(outputs(p), Y)

    with sdpa_kernel(SDPBackend.MATH):  # the same mathematics by forward mode
        hessian, pushed = along(torch.func.grad(loss)), along(outputs)
        curved = torch.func.jvp(torch.func.grad(lambda o: F.cross_entropy(o, Y)), (outputs(params),), (pushed,))[1]
        (gauss_newton,) = torch.func.vjp(outputs, params)[1](curved)
        slope = along(loss)
    point = oracle.at()
    for found, expected in ((point.hvp(v), hessian), (point.ggnvp(v), gauss_newton)):
        for f, e in zip(found, expected.values(), strict=True):
            torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(oracle.at().jvp(v), slope, rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize("query", [Query.HVP, Query.GGNVP, Query.JVP])
def test_the_switch_is_noted_and_the_users_setting_is_back(make: Callable[[], nn.Module], query: Query) -> None:
    module = built(make)
    oracle = oracle_of(module, Query.GRADIENT, query)
    flash = torch.backends.cuda.flash_sdp_enabled()
    assert oracle.notes() == [], "nothing was asked yet"
    for _ in range(2):
        getattr(oracle.at(), query.value)([torch.ones_like(p) for p in oracle.parameters])
        assert oracle.notes() == [ATTENTION_NOTE]
    assert torch.backends.cuda.flash_sdp_enabled() == flash


@both
def test_a_point_that_needs_no_second_derivative_keeps_the_fast_kernel(make: Callable[[], nn.Module]) -> None:
    oracle = oracle_of(built(make), Query.GRADIENT, Query.HVP)
    point = oracle.at(needs=(Query.GRADIENT,))
    point.gradient()
    assert oracle.notes() == []
    names, waiting = set(), [point.forward().grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            names.add(node.name())
            waiting += [inner for inner, _ in node.next_functions]
    assert any("FlashAttention" in name for name in names)


def test_a_model_without_attention_has_nothing_to_say() -> None:
    oracle = oracle_of(built(Plain), Query.GRADIENT, Query.HVP)
    for _ in range(2):
        oracle.at().hvp([torch.ones_like(p) for p in oracle.parameters])
    assert oracle.notes() == []
    assert oracle.attention.seen is False


@both
def test_alone_a_closure_is_switched_and_a_graph_of_the_fused_kernel_is_refused(make: Callable[[], nn.Module]) -> None:
    module = built(make)
    optimizer = AdaHessian(module.parameters(), lr=0.01)
    before = [p.detach().clone() for p in module.parameters()]
    F.cross_entropy(module(X), Y).backward(create_graph=True)
    with pytest.raises(CurvebenchError, match=MATH):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    optimizer.zero_grad()
    start = optimizer.step(lambda: F.cross_entropy(module(X), Y)).item()
    with sdpa_kernel(SDPBackend.MATH):  # the remedy works
        optimizer.zero_grad()
        loss = F.cross_entropy(module(X), Y)
        loss.backward(create_graph=True)
    optimizer.step()
    assert loss.item() < start


def test_a_compiled_model_is_refused_with_the_remedy_and_other_errors_pass() -> None:
    # torch's own words, since compiling one takes a minute
    said = "torch.compile with aot_autograd does not currently support double backward"
    with pytest.raises(CurvebenchError, match=r"a model under torch.compile has no double backward"), explained():
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match=r"^something else$"), explained():
        raise RuntimeError("something else")


SECOND = sorted(c.name for c in cards.load_all("methods") if {"hvp", "ggnvp", "jvp"} & {str(n) for n in c.needs}
                and "torch" in c.implementation)  # fmt: skip


@pytest.mark.parametrize("method", SECOND)
def test_every_method_of_second_derivatives_trains_a_model_with_attention(method: str) -> None:
    shapes = {"qkv.weight": (24, 8), "qkv.bias": (24,), "out.weight": (3, 8), "out.bias": (3,)}
    problem = tiny._classes("tiny-attention", shapes, (5, 8), Attention, None)
    running = tiny.engine(tiny.run_spec(method, dtype="float32"), problem)
    before = tiny.parameters(running)
    for step in range(2):
        running.step(step, float("inf"))
    assert ATTENTION_NOTE in running.notes()
    assert tiny.relative(before, tiny.parameters(running)) > 0
