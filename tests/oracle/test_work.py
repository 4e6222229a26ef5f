"""Flops by formula: equal to hand formulas, the same in torch and in jax, loops and branches as they were run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax
from torch import nn

from curvebench.kernels import kronecker_torch, mkor_torch
from curvebench.kernels.mfac_torch import SlidingWindow
from curvebench.oracle import work as W
from curvebench.oracle.work import Work
from curvebench.oracle.work_jax import measure
from curvebench.oracle.work_torch import WorkCounter

N = 300


def in_torch(function: Callable[..., Any], *args: Any) -> Work:
    with WorkCounter() as counter:
        function(*args)
    return counter.work


def in_jax(function: Callable[..., Any], *args: Any) -> Work:
    return measure(function, *args)(*args)


A = np.eye(N, dtype=np.float32) * 3 + 0.01
B = np.ones((N, 7), np.float32)
V = np.ones(N, np.float32)

OPERATIONS: list[tuple[str, Any, Any, float]] = [
    ("gemm", lambda a: a @ torch.from_numpy(B), lambda a: a @ B, 2 * N * N * 7),
    ("matvec", lambda a: a @ torch.from_numpy(V), lambda a: a @ V, 2 * N * N),
    ("outer", lambda a: torch.outer(a[0], a[1]), lambda a: jnp.outer(a[0], a[1]), N * N),
    ("elementwise", lambda a: (a * a + a).exp(), lambda a: jnp.exp(a * a + a), 3 * N * N),
    ("sum", lambda a: a.sum(), lambda a: a.sum(), N * N),
    ("cholesky", torch.linalg.cholesky, jnp.linalg.cholesky, N**3 / 3),
    ("eigh", torch.linalg.eigh, jnp.linalg.eigh, 9 * N**3),
    ("solve", lambda a: torch.linalg.solve(a, torch.from_numpy(B)), lambda a: jnp.linalg.solve(a, B),
     2 * N**3 / 3 + 2 * N * N * 7),
    ("qr", torch.linalg.qr, jnp.linalg.qr, 2 * 4 * N**3 / 3),
    ("svd", torch.linalg.svd, jnp.linalg.svd, 21 * N**3),
    ("rfft", torch.fft.rfft, jnp.fft.rfft, 2.5 * N * N * np.log2(N)),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs", "hand"), [o[1:] for o in OPERATIONS], ids=[o[0] for o in OPERATIONS])
def test_an_operation_costs_its_formula_in_both_frameworks(ours: Any, theirs: Any, hand: float) -> None:
    seen = in_torch(ours, torch.from_numpy(A)), in_jax(theirs, jnp.asarray(A))
    for work in seen:
        # beside the leading term: symmetrisation, checks, conjugates
        assert work.flops == pytest.approx(hand, rel=0.10)
        assert not work.unknown
    assert seen[0].bytes >= A.nbytes
    assert seen[1].bytes >= A.nbytes


GEOMETRIES = [  # kernel, stride, padding, dilation, groups
    ((3, 3), (1, 1), (0, 0), (1, 1), 1),
    ((3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((1, 1), (2, 2), (0, 0), (1, 1), 1),
    ((5, 3), (3, 2), (2, 0), (1, 2), 2),
]


def multiplications(geometry: Any, height: int, width: int) -> int:
    """Products of a kernel's weight with an input that is there, one channel to one channel, counted one by one."""
    kernel, stride, padding, dilation, _ = geometry
    count = 0
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1
             for n, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)]  # fmt: skip
    for y, x, i, j in np.ndindex(*sizes, *kernel):
        row, column = y * stride[0] + i * dilation[0] - padding[0], x * stride[1] + j * dilation[1] - padding[1]
        count += 0 <= row < height and 0 <= column < width
    return count


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolutions_and_their_gradients_cost_what_is_multiplied_in_both_frameworks(geometry: Any) -> None:
    kernel, stride, padding, dilation, groups = geometry
    x, w = torch.randn(4, 6, 10, 9, requires_grad=True), torch.randn(8, 6 // groups, *kernel, requires_grad=True)
    one = 2 * 4 * 8 * (6 // groups) * multiplications(geometry, 10, 9)
    ours = lambda: nn.functional.conv2d(x, w, None, stride, padding, dilation, groups)  # noqa: E731
    assert in_torch(ours).flops == one

    def convolved(x: Any, w: Any) -> Any:
        return lax.conv_general_dilated(x, w, stride, [(p, p) for p in padding], rhs_dilation=dilation,
                                        feature_group_count=groups)  # fmt: skip

    arrays = jnp.asarray(x.detach().numpy()), jnp.asarray(w.detach().numpy())
    assert in_jax(convolved, *arrays).flops == one
    y = ours()
    g = torch.ones_like(y)
    assert in_torch(lambda: torch.autograd.grad(y, (x, w), g, retain_graph=True)).flops == 2 * one
    back = in_jax(lambda x, w: jax.vjp(convolved, x, w)[1](jnp.asarray(g.numpy())), *arrays).flops
    assert back == pytest.approx(3 * one, rel=1e-3), "the forward and its two gradients"
    transposed = in_torch(lambda: nn.functional.conv_transpose2d(y, w, None, stride, padding, 0, groups, dilation))
    cut = nn.functional.conv_transpose2d(y, w, None, stride, padding, 0, groups, dilation).shape[2:]
    assert transposed.flops == 2 * 4 * 8 * (6 // groups) * multiplications(geometry, *cut)


# -- the kernels by hand -----------------------------------------------------------------------------------------------


def test_mfac_costs_its_passes_over_the_window() -> None:
    m, d = 16, 20_000
    window = SlidingWindow(m, d, 1e-3)
    g = torch.randn(d)
    for _ in range(m):
        window.update(g)
    # S's new row, the two products of the query's formula inside the span: G g once, G' c once
    work = in_torch(lambda: window.update(g))
    assert work.flops == pytest.approx(4 * m * d, rel=0.10)


def test_mkors_rank_one_update_is_quadratic_in_the_width() -> None:
    n = 200
    work = in_torch(lambda: mkor_torch.rank_one(torch.eye(n), torch.randn(n), "code"))
    assert work.flops == pytest.approx(4 * n * n, rel=0.05)  # J v, and beta J + u u'


def test_kfac_costs_its_gram_its_eigenbasis_and_four_products() -> None:
    rows, i, o = 64, 50, 30
    a, g, gradient = torch.randn(rows, i), torch.randn(rows, o), torch.randn(o, i)
    gram = in_torch(lambda: kronecker_torch.input_gram(a, None, bias=False)).flops
    assert gram == pytest.approx(2 * rows * i * i, rel=0.05)
    basis = in_torch(lambda: kronecker_torch.eigenbasis(a.T @ a)).flops
    assert basis == pytest.approx(9 * i**3 + 2 * rows * i * i, rel=0.05)
    (dA, QA), (dG, QG) = (kronecker_torch.eigenbasis(x.T @ x) for x in (a, g))
    scale = torch.outer(dG, dA)
    solve = in_torch(lambda: kronecker_torch.solve_eigen(gradient, QA, QG, scale, 1e-3)).flops
    assert solve == pytest.approx(4 * o * i * (o + i), rel=0.05)


def test_an_lstm_costs_its_four_gates() -> None:
    steps, batch, inputs, hidden = 6, 4, 30, 50
    hand = steps * batch * 2 * (inputs + hidden) * 4 * hidden
    x = torch.randn(steps, batch, inputs)
    library = nn.LSTM(inputs, hidden)
    assert in_torch(lambda: library(x)).flops == pytest.approx(hand, rel=0.06)

    def gates(weight: Any, xs: Any, xp: Any, sigmoid: Any, cat: Any, split: Any) -> Any:
        h = c = xp.zeros((batch, hidden))
        for t in range(steps):
            i, f, g, o = split(cat((xs[t], h)) @ weight)
            c = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
            h = sigmoid(o) * xp.tanh(c)
        return h

    weight = np.ones((inputs + hidden, 4 * hidden), np.float32)
    own = in_torch(gates, torch.from_numpy(weight), x, torch, torch.sigmoid, lambda p: torch.cat(p, 1),
                   lambda z: z.chunk(4, 1))  # fmt: skip

    def traced(w: Any, xs: Any) -> Any:
        return gates(w, xs, jnp, jax.nn.sigmoid, lambda p: jnp.concatenate(p, 1), lambda z: jnp.split(z, 4, 1))

    twin = in_jax(traced, jnp.asarray(weight), jnp.asarray(x.numpy()))
    assert own.flops == pytest.approx(hand, rel=0.05)
    assert twin.flops == pytest.approx(own.flops, rel=0.05)


# -- control flow ------------------------------------------------------------------------------------------------------


def test_a_loop_costs_its_turns_and_a_cond_the_branch_taken() -> None:
    def power(a: Any, n: Any) -> Any:
        return lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] @ a, c[1] + 1), (a, 0))[0]

    count = measure(power, jnp.asarray(A), 3)
    assert [count(jnp.asarray(A), n).flops for n in (1, 5)] == pytest.approx([2 * N**3, 10 * N**3], rel=1e-3)

    def maybe(a: Any, often: Any) -> Any:
        return jax.jit(lambda x: lax.cond(often, lambda y: (y @ y).sum(), lambda y: y.sum(), x))(a)

    branch = measure(maybe, jnp.asarray(A), True)
    assert branch(jnp.asarray(A), True).flops == pytest.approx(2 * N**3 + N * N, rel=1e-3)
    assert branch(jnp.asarray(A), False).flops == pytest.approx(N * N, rel=1e-2)

    def nested(a: Any, n: Any) -> Any:
        return lax.scan(lambda c, x: (power(c, n), x.sum()), a, jnp.ones((4, 3)))[0]

    assert measure(nested, jnp.asarray(A), 2)(jnp.asarray(A), 2).flops == pytest.approx(4 * 4 * N**3, rel=1e-2)


def test_fixed_loops_need_no_second_program() -> None:
    def turns(a: Any) -> Any:
        return lax.fori_loop(0, 6, lambda _, c: c @ a, a)

    assert in_jax(turns, jnp.asarray(A)).flops == pytest.approx(6 * 2 * N**3, rel=1e-3)


def test_what_no_formula_knows_is_named_and_never_nothing() -> None:
    work = in_torch(lambda: torch.cdist(torch.randn(5, 3), torch.randn(4, 3)))
    assert "_cdist_forward" in work.unknown or work.flops > 0
    strange = in_torch(lambda: torch.linalg.matrix_exp(torch.eye(3)))
    assert strange.flops >= 9
    known = Work()
    known.add(Work(3.0, 1.0), 2.5)
    assert (known.flops, known.bytes) == (7.5, 2.5)


def test_the_foreach_and_the_fused_optimisers_are_counted() -> None:
    def stepped(**options: Any) -> float:
        p = nn.Parameter(torch.ones(1000))
        p.grad = torch.ones(1000)
        optimizer = torch.optim.Adam([p], **options)
        optimizer.step()
        return in_torch(optimizer.step).flops

    seen = [stepped(foreach=True), stepped(foreach=False), stepped(fused=True)]
    assert max(seen) / min(seen) < 1.5
    assert min(seen) > 9_000


def test_factorisations_by_hand() -> None:
    assert W.lu(6, 6) == pytest.approx(2 * 6**3 / 3)
    assert W.qr(6, 6) == pytest.approx(4 * 6**3 / 3)
    assert W.lstm(1, 1, 2, 3) == 2 * 5 * 12 + 63
