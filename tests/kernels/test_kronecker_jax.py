"""The jax kernels of layer-wise methods against the NumPy definitions, and name by name against torch's modules."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from curvebench.kernels import kronecker_jax as K
from curvebench.kernels import mkor_jax as M
from curvebench.kernels import reference_kronecker as R
from curvebench.kernels.geometry import Geometry
from curvebench.kernels.rank_one_jax import eva_direction

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "mkor" / "variants_derived.npz")
NAMES = {"code": "code", "paper": "paper_literal", "ema": "exact_ema"}
RNG = np.random.default_rng(0)
CONVOLUTIONS = [  # kernel, stride, padding, dilation
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (1, 0), (1, 1)),
    ((3, 2), (1, 2), (2, 2), (2, 1)),
    ((1, 1), (1, 1), (0, 0), (1, 1)),
    ((5, 3), (1, 1), (2, 2), (2, 2)),
]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)  # programs of microseconds: compile them fast
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield
    jax.config.update("jax_disable_most_optimizations", before)


def spd(n: int) -> np.ndarray:
    x = RNG.standard_normal((2 * n, n))
    return x.T @ x / (2 * n)


@pytest.mark.parametrize("module", ["kronecker", "mkor", "rank_one"])
def test_the_public_names_are_those_of_torch(module: str) -> None:
    ours, theirs = (
        {name for name, value in vars(importlib.import_module(f"curvebench.kernels.{module}_{f}")).items()
         if not name.startswith("_") and getattr(value, "__module__", "").endswith(f"{module}_{f}")}
        for f in ("jax", "torch")
    )  # fmt: skip
    assert theirs - ours <= {"geometry"}, "which reads a torch module"
    assert ours - theirs <= {"windows"}


def test_the_arguments_are_those_of_torch() -> None:
    from curvebench.kernels import kronecker_torch, mkor_torch

    for ours, theirs in ((K, kronecker_torch), (M, mkor_torch)):
        for name, function in inspect.getmembers(theirs, inspect.isfunction):
            if function.__module__ == theirs.__name__ and hasattr(ours, name):
                twin = getattr(ours, name)
                assert list(inspect.signature(twin).parameters) == list(inspect.signature(function).parameters), name


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 4), (2, 3, 2, 4)])
def test_factors_of_linear_layers(shape: tuple[int, ...], bias: bool) -> None:
    x, g = RNG.standard_normal(shape), RNG.standard_normal((*shape[:-1], 3))
    (gram, n, t), rows, outer = jax.jit(
        lambda x, g: (K.input_gram(x, None, bias), K.input_rows(x, None, bias), K.output_gram(g, None))
    )(x, g)
    np.testing.assert_allclose(gram / (n * t), R.input_factor(R.rows(x, bias)), rtol=1e-13)
    np.testing.assert_allclose(rows, R.rows(x, bias))
    np.testing.assert_allclose(outer / n, R.gradient_factor(g.reshape(shape[0], -1, 3)), rtol=1e-13)


@pytest.mark.parametrize("size", [(11, 9), (3, 3)])
@pytest.mark.parametrize("window", CONVOLUTIONS, ids=str)
def test_factors_of_convolutions(window: Any, size: tuple[int, int]) -> None:
    kernel, stride, (rows, columns), dilation = window
    geo = Geometry(kernel, stride, (columns, columns, rows, rows), dilation)
    x = RNG.standard_normal((4, 2, *size))
    if any(s + 2 * p < d * (k - 1) + 1 for s, p, d, k in zip(size, (rows, columns), dilation, kernel, strict=True)):
        pytest.skip("the window is larger than the image")
    g = RNG.standard_normal((4, 3, 5, 2))

    @jax.jit
    def kernels(x: Any, g: Any) -> Any:
        each = [(K.input_rows(x, geo, bias), K.input_gram(x, geo, bias), M.mean_input(x, geo, bias, 100.0, 1.0))
                for bias in (True, False)]  # fmt: skip
        return each, K.output_gram(g, geo), K.output_rows(g, geo)

    each, outer, flat = kernels(x, g)
    for bias, (found, (gram, n, t), mean) in zip((True, False), each, strict=True):
        a = R.patches(x, kernel, stride, (rows, columns), dilation, bias)
        np.testing.assert_allclose(found, a)
        assert (int(n), int(t)) == (4, a.shape[1])
        np.testing.assert_allclose(gram / (n * t), R.input_factor(a), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(mean, a.mean((0, 1)), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(outer / 4, R.gradient_factor(R.output_rows(g)), rtol=1e-13)
    np.testing.assert_allclose(flat, R.output_rows(g))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_is_not_of_zeros(mode: str) -> None:
    import torch
    import torch.nn.functional as F

    geo = Geometry((3, 2), (1, 1), (1, 2, 0, 1), (1, 1), mode)
    x = RNG.standard_normal((2, 3, 5, 6))
    expected = F.pad(torch.from_numpy(x), geo.padding, mode)
    np.testing.assert_array_equal(K.padded(jnp.asarray(x), geo), expected)


def test_solves() -> None:
    A, G, W = spd(5), spd(4), RNG.standard_normal((4, 5))

    @jax.jit
    def solves(A: Any, G: Any, W: Any) -> Any:
        (dA, QA), (dG, QG) = K.eigenbasis(A), K.eigenbasis(G)
        inverse = K.damped_inverse(G, 0.2) @ W @ K.damped_inverse(A, 0.3)
        bad = K.damped_inverse(-A, 0.01)
        return K.solve_eigen(W, QA, QG, jnp.outer(dG, dA), 0.1), inverse, K.pi(A, G), K.pi(0 * A, G), bad

    eigen, inverse, pi, one, bad = solves(A, G, W)
    np.testing.assert_allclose(eigen, R.solve(A, G, W, 0.1), rtol=1e-11)
    np.testing.assert_allclose(inverse, R.solve_factored(A, G, W, 0.3, 0.2), rtol=1e-11)
    assert float(pi) == pytest.approx(R.pi(A, G), rel=1e-14)
    assert float(one) == 1
    assert not np.isfinite(bad).all(), "no positive definite factor, no number"


@pytest.mark.parametrize("positions", [1, 3])
def test_second_moments_and_their_transport(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(K, "CHUNK", 50)  # several chunks even here
    a, g = RNG.standard_normal((6, positions, 5)), RNG.standard_normal((6, positions, 4))
    (_, QA), (_, QG) = np.linalg.eigh(spd(5)), np.linalg.eigh(spd(4))
    found = jax.jit(K.second_moments)(a, g, QA, QG)
    np.testing.assert_allclose(found / 6, R.scaling(a, g, QA, QG), rtol=1e-12)
    (_, RA), (_, RG) = np.linalg.eigh(spd(5)), np.linalg.eigh(spd(4))
    moved = jax.jit(K.transported)(found, QA, QG, RA, RG)
    np.testing.assert_allclose(moved.sum(), found.sum(), rtol=1e-13)
    np.testing.assert_allclose(moved, (RG.T @ QG) ** 2 @ np.asarray(found) @ ((RA.T @ QA) ** 2).T, rtol=1e-12)


def test_fisher_columns() -> None:
    o = RNG.standard_normal((7, 3))
    for likelihood in ("categorical", "gaussian"):
        found = K.fisher_columns(jnp.asarray(o), likelihood, "type-2", _nothing)
        np.testing.assert_allclose(found, R.columns(o, likelihood), rtol=1e-13, atol=1e-15)
    found = K.fisher_columns(jnp.asarray(o), "bernoulli", "type-2", _nothing)
    p = 1 / (1 + np.exp(-o))
    np.testing.assert_allclose((found**2).sum(0), p * (1 - p), rtol=1e-13)


@pytest.mark.parametrize("likelihood", K.LIKELIHOODS)
@pytest.mark.parametrize("shape", [(50, 3), (4, 5, 6)])
def test_sampled_columns_are_those_of_torch_for_the_same_draws(likelihood: str, shape: tuple[int, ...]) -> None:
    import torch

    from curvebench.kernels import kronecker_torch

    rng = np.random.default_rng(5)
    o, normal, uniform = rng.standard_normal(shape), rng.standard_normal(shape), rng.random(shape)

    def drawn(kind: str, size: tuple[int, ...]) -> np.ndarray:
        return (normal if kind == "normal" else uniform).reshape(-1)[: int(np.prod(size))].reshape(size)

    (theirs,) = kronecker_torch.fisher_columns(
        torch.from_numpy(o), likelihood, "mc", lambda k, s: torch.from_numpy(drawn(k, s))
    )
    (ours,) = K.fisher_columns(jnp.asarray(o), likelihood, "mc", lambda k, s: jnp.asarray(drawn(k, s)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def _nothing(kind: str, shape: tuple[int, ...]) -> jax.Array:
    raise AssertionError("type 2 draws nothing")


# -- MKOR --------------------------------------------------------------------------------------------------------------


def run(rule: str, vectors: np.ndarray, blend: bool = False) -> tuple[np.ndarray, np.ndarray]:
    @jax.jit
    def turn(J: Any, v: Any) -> Any:
        return M.rank_one(M.blended(J) if blend else J, v, rule), jnp.abs(J).max() > M.LIMIT

    found, flags = [], []
    J = jnp.eye(vectors.shape[1])
    for v in vectors:
        J, flag = turn(J, v)
        found.append(np.asarray(J))
        flags.append(bool(flag))
    return np.stack(found), np.array(flags)


@pytest.mark.parametrize("rule", M.RULES)
def test_sequences_of_rank_one_updates(rule: str) -> None:
    np.testing.assert_allclose(run(rule, GOLDEN["V"])[0], GOLDEN[NAMES[rule]], rtol=1e-12, atol=1e-14)
    for blend, end in ((False, ""), (True, "_stab")):
        expected = GOLDEN[f"long_{NAMES[rule]}{end}"]
        found, flags = run(rule, GOLDEN["V_long"], blend)
        assert np.abs(found - expected).max() <= 1e-11 * np.abs(expected).max()
        if blend:
            np.testing.assert_array_equal(flags, GOLDEN[f"long_{NAMES[rule]}_stab_flag"])


@pytest.mark.parametrize("rule", M.RULES)
@pytest.mark.parametrize("zeta", [1.0, 0.9])
def test_one_step_on_a_mixed_factor(rule: str, zeta: float) -> None:
    J, v = spd(6), RNG.standard_normal(6)

    @jax.jit
    def turn(J: Any, v: Any) -> Any:
        step = M.rank_one_step(J, v, rule, zeta=zeta)
        return M.update_(J, step), M.diagonal_after(J, step)

    found, diagonal = turn(J, v)
    expected = R.rank_one(zeta * J + (1 - zeta) * np.eye(6), v, rule)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(diagonal, np.diag(expected), rtol=1e-11)


def test_half_precision_factors_neither_overflow_nor_stand_still() -> None:
    J = jnp.eye(64, dtype=jnp.float16)
    v = jnp.full(64, 1e4, jnp.float32)  # v' J v = 6.4e9 is no half-precision number
    new = jax.jit(lambda J, v: M.rank_one(J, v, "code"))(J, v)
    assert new.dtype == jnp.float16
    exact = R.rank_one(np.eye(64), np.asarray(v, np.float64), "code")
    assert np.abs(np.asarray(new, np.float64) - exact).max() < 1e-3


def test_preconditioned_gradients_and_their_length() -> None:
    JG, JA, W = spd(4), spd(6), RNG.standard_normal((4, 6))
    out, column = M.preconditioned(*map(jnp.asarray, (JG, JA, W[:, :-1], W[:, -1])))
    assert column is not None
    found = np.concatenate([out, column[:, None]], 1)
    np.testing.assert_allclose(found, JG @ W @ JA, rtol=1e-12, atol=1e-14)
    out, none = M.preconditioned(jnp.asarray(JG), jnp.asarray(JA), jnp.asarray(W), None)
    assert none is None
    np.testing.assert_allclose(out, JG @ W @ JA, rtol=1e-12, atol=1e-14)
    ratio = M.length(jnp.asarray(W[:, :-1]), jnp.asarray(W[:, -1])) / M.length(
        jnp.asarray(found[:, :-1]), jnp.asarray(found[:, -1])
    )
    np.testing.assert_allclose(ratio * found, R.rescaled(W, found, True), rtol=1e-13)
    assert float(M.length(jnp.asarray(W[:, :-1]), jnp.asarray(W[:, -1]), "joint")) == pytest.approx(np.linalg.norm(W))


def test_eva_direction() -> None:
    W, a, g = RNG.standard_normal((4, 5)), RNG.standard_normal(5), RNG.standard_normal(4)
    found = eva_direction(*map(jnp.asarray, (W, a, g)), 0.3)
    np.testing.assert_allclose(found, R.solve(np.outer(a, a), np.outer(g, g), W, 0.3), rtol=1e-11)
