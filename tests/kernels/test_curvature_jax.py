"""Curvature products, per-sample gradients, Hutchinson and Lanczos in jax: references, torch's names, bad input."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree

import curvebench.kernels
from curvebench.errors import CurvebenchError
from curvebench.kernels import hutchinson_jax as T
from curvebench.kernels import lanczos_jax as L
from curvebench.kernels import reference_curvature as R
from curvebench.kernels.batched_products_jax import gauss_newton_products, hessian_products
from curvebench.kernels.per_sample_jax import per_sample_gradients
from curvebench.kernels.products_jax import (
    differentiate,
    gauss_newton_vector_product,
    hessian_vector_product,
    on_vectors,
)

BATCH = 5
SUBJECTS = ("products", "batched_products", "per_sample", "hutchinson", "lanczos", "mfac_static")


@pytest.fixture(autouse=True)
def _wide() -> Iterator[None]:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


def symmetric(d: int, seed: int = 0, eigenvalues: np.ndarray | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (Q * (rng.standard_normal(d) if eigenvalues is None else eigenvalues)) @ Q.T


def draws(n: int, d: int, law: str = "normal", seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (n, d)) * 2.0 - 1 if law == "rademacher" else rng.standard_normal((n, d))


def product(H: np.ndarray) -> Callable[[Array], Array]:
    matrix = jnp.asarray(H)
    return lambda v: matrix @ v


@pytest.mark.parametrize("subject", SUBJECTS)
def test_public_names_are_those_of_torch(subject: str) -> None:
    folder = Path(curvebench.kernels.__file__).parent

    def public(framework: str) -> set[str]:
        body = ast.parse((folder / f"{subject}_{framework}.py").read_text()).body
        found = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        return {name for name in found if not name.startswith("_")}

    assert public("torch") <= public("jax")


# -- products ----------------------------------------------------------------------------------------------------------


class Problem:
    """A small network with its loss as a function of one vector, for finite differences."""

    def __init__(self, loss: str) -> None:
        rng = np.random.default_rng(0)
        self.params = {"a": jnp.asarray(rng.standard_normal((2, 3))), "b": jnp.asarray(rng.standard_normal(3))}
        self.x, self.y = jnp.asarray(rng.standard_normal((BATCH, 2))), jnp.asarray(rng.integers(0, 3, BATCH))
        self.kind = loss
        flat, self.unflatten = ravel_pytree(self.params)
        self.theta = np.asarray(flat)
        self._outputs, self._criterion = jax.jit(self.outputs), jax.jit(self.criterion)

    def apply(self, p: Any, x: Array) -> Array:
        return jnp.tanh(x @ p["a"] + p["b"]) * p["b"]

    def outputs(self, p: Any) -> Array:
        return self.apply(p, self.x)

    def criterion(self, o: Array) -> Array:
        if self.kind == "squared":
            return jnp.mean(o**2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(o), self.y[:, None], 1))

    def loss(self, p: Any) -> Array:
        return self.criterion(self.outputs(p))

    def outputs_at(self, theta: np.ndarray) -> np.ndarray:
        return np.asarray(self._outputs(self.unflatten(jnp.asarray(theta)))).reshape(-1)

    def criterion_at(self, outputs: np.ndarray) -> float:
        return float(self._criterion(jnp.asarray(outputs).reshape(BATCH, 3)))

    def loss_at(self, theta: np.ndarray) -> float:
        return self.criterion_at(self.outputs_at(theta))


@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
def test_products_are_the_references_alone_and_in_a_batch(loss: str) -> None:
    with jax.enable_x64(True):
        problem = Problem(loss)
    params, identity = problem.params, jnp.eye(len(problem.theta))
    gradient = jax.grad(problem.loss)
    basis = jax.vmap(problem.unflatten)(identity)

    def dense(found: Any) -> np.ndarray:
        return np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(found)).T

    H = np.asarray(
        jax.jit(lambda E: jax.lax.map(on_vectors(lambda v: hessian_vector_product(gradient, params, v), params), E))(
            identity
        )
    ).T
    G = np.asarray(
        jax.jit(
            lambda E: jax.lax.map(
                on_vectors(
                    lambda v: gauss_newton_vector_product(problem.outputs, params, v, problem.criterion), params
                ),
                E,
            )
        )(identity)
    ).T
    np.testing.assert_allclose(H, R.hessian(problem.loss_at, problem.theta), atol=2e-6)
    np.testing.assert_allclose(G, R.gauss_newton(problem.outputs_at, problem.criterion_at, problem.theta), atol=2e-6)
    assert np.linalg.eigvalsh(G)[0] > -1e-14
    np.testing.assert_allclose(dense(hessian_products(gradient, params, basis)), H, atol=1e-14)
    np.testing.assert_allclose(
        dense(gauss_newton_products(problem.outputs, params, basis, problem.criterion)), G, atol=1e-14
    )


def test_what_does_not_depend_or_does_not_curve_is_zero() -> None:
    p = {"p": jnp.ones(2), "q": jnp.ones(3)}
    assert differentiate(lambda t: 2 * t["p"].sum(), p)["q"].tolist() == [0, 0, 0]
    assert differentiate(lambda t: 3 * t["p"], p, jnp.array([1.0, 2.0]))["p"].tolist() == [3, 6]
    found = hessian_vector_product(jax.grad(lambda t: 2 * t["p"].sum()), p, p)
    assert {k: v.tolist() for k, v in found.items()} == {"p": [0, 0], "q": [0, 0, 0]}
    found = gauss_newton_vector_product(lambda t: 3 * t["p"], p, p, jnp.sum)
    assert {k: v.tolist() for k, v in found.items()} == {"p": [0, 0], "q": [0, 0, 0]}


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_per_sample_gradients_are_the_gradients_of_batches_of_one(chunk_size: int | None) -> None:
    problem = Problem("cross-entropy")

    def loss(p: Any, x: Array, y: Array) -> Array:
        return -jax.nn.log_softmax(problem.apply(p, x))[jnp.arange(len(x)), y].mean()

    found = per_sample_gradients(loss, problem.params, problem.x, problem.y, chunk_size=chunk_size)
    rows = np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(found))
    assert rows.shape == (BATCH, len(problem.theta))
    for n in (0, BATCH - 1):
        at = jax.jit(lambda t, n=n: loss(problem.unflatten(t), problem.x[n : n + 1], problem.y[n : n + 1]))
        expected = R.gradient(lambda theta, at=at: float(at(jnp.asarray(theta))), problem.theta)
        np.testing.assert_allclose(rows[n], expected, atol=1e-9)


# -- Hutchinson --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["rademacher", "normal"])
@pytest.mark.parametrize("form", [jnp.asarray, lambda Z: iter(list(jnp.asarray(Z)))], ids=["array", "iterable"])
def test_estimates_are_the_reference_for_the_same_probes(law: str, form: Callable[[np.ndarray], Any]) -> None:
    H, Z, sizes = symmetric(7), draws(5, 7, law), (1, 4, 2)
    diagonal, trace = T.hutchinson_diagonal(product(H), form(Z)), T.hutchinson_trace(product(H), form(Z))
    for found, expected in ((diagonal, R.hutchinson_diagonal(H, Z)), (trace, R.hutchinson_trace(H, Z))):
        assert found.draws == 5
        np.testing.assert_allclose(found.value, expected[0], rtol=1e-12)
        np.testing.assert_allclose(found.standard_error, expected[1], rtol=1e-10)
    blocks = T.hutchinson_block_traces(product(H), form(Z), sizes)
    np.testing.assert_allclose(blocks.value, R.hutchinson_block_traces(H, Z, sizes), rtol=1e-10)
    S = draws(3, 7, law, seed=2)
    plus = T.hutchpp_trace(product(H), jnp.asarray(S), form(Z))
    np.testing.assert_allclose(plus.value, R.hutchpp_trace(H, S, Z), rtol=1e-10)


def test_every_sign_pattern_once_is_the_expectation_and_spreads_as_the_formulas_say() -> None:
    """Unbiased without statistics: the mean over all 2^d Rademacher probes, each as likely."""
    H, sizes = symmetric(7), (1, 4, 2)
    signs = jnp.asarray(np.array(list(itertools.product([-1.0, 1.0], repeat=7))))
    spread = np.sqrt(len(signs) - 1)  # of the whole population of probes
    truth = [np.trace(H[a:b, a:b]) for a, b in ((0, 1), (1, 5), (5, 7))]
    for found, mean, variance in (
        (T.hutchinson_diagonal(product(H), signs), np.diag(H), R.diagonal_variance(H, "rademacher")),
        (T.hutchinson_trace(product(H), signs), np.trace(H), R.trace_variance(H, "rademacher")),
        (T.hutchinson_block_traces(product(H), signs, sizes), truth, R.block_trace_variance(H, sizes)),
    ):
        np.testing.assert_allclose(found.value, mean, atol=1e-13)
        np.testing.assert_allclose((np.asarray(found.standard_error) * spread) ** 2, variance, rtol=1e-10, atol=1e-25)


def test_one_probe_is_exact_for_a_diagonal_matrix_and_half_precision_is_averaged_in_single() -> None:
    one = T.hutchinson_diagonal(product(np.diag([3.0, -1.0])), jnp.array([[1.0, -1.0]]))
    assert one.value.tolist() == [3.0, -1.0]
    assert np.isnan(one.standard_error).all(), "one draw says nothing about its spread"
    H = jnp.diag(jnp.array([1.0, 3.0], jnp.bfloat16))
    found = T.hutchinson_trace(lambda v: H @ v, jnp.tile(jnp.array([1.0, -1.0], jnp.bfloat16), (999, 1)))
    assert (found.value.dtype, float(found.value)) == (jnp.float32, 4.0)


def test_hutchpp_is_exact_up_to_the_rank_of_its_sketch() -> None:
    H = symmetric(12, eigenvalues=np.array([5.0, -2.0, 1.0] + [0.0] * 9))
    found = T.hutchpp_trace(product(H), jnp.asarray(draws(3, 12, seed=2)), jnp.asarray(draws(4, 12)))
    assert float(found.value) == pytest.approx(4.0, rel=1e-10)
    assert float(found.standard_error) < 1e-10


@pytest.mark.parametrize("probes", [[], np.zeros((0, 2))], ids=["list", "array"])
def test_no_probe_is_refused(probes: Any) -> None:
    given = probes if isinstance(probes, list) else jnp.asarray(probes)
    with pytest.raises(ValueError, match="probes: there is none: at least one is needed"):
        T.hutchinson_trace(product(np.eye(2)), given)


# -- Lanczos -----------------------------------------------------------------------------------------------------------


def test_the_tridiagonal_is_the_reference_and_has_the_matrix_s_eigenvalues() -> None:
    values = np.array([-7.0, -2.0, 0.0, 1.0, 5.0, 9.0])
    H, v = symmetric(6, eigenvalues=values), draws(1, 6)[0]
    found = L.lanczos(product(H), jnp.asarray(v), 9)
    assert len(found.diagonal) == 6
    np.testing.assert_allclose(np.linalg.eigvalsh(np.asarray(found.matrix())), values, atol=1e-10)
    basis = np.asarray(found.basis)
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-13)
    np.testing.assert_allclose(basis @ H @ basis.T, found.matrix(), atol=1e-10)
    H, v = symmetric(30), draws(1, 30)[0]
    np.testing.assert_allclose(L.lanczos(product(H), jnp.asarray(v), 9).matrix(), R.lanczos(H, v, 9), atol=1e-12)


def test_it_stops_where_the_krylov_space_is_exhausted() -> None:
    """Three distinct eigenvalues in dimension 20: three steps, and their values are exact."""
    H = symmetric(20, eigenvalues=np.repeat([-1.0, 2.0, 7.0], [10, 6, 4]))
    found = L.lanczos(product(H), jnp.asarray(draws(1, 20)[0]), 15)
    assert len(found.diagonal) == 3
    assert float(found.residual) == 0
    np.testing.assert_allclose(np.linalg.eigvalsh(np.asarray(found.matrix())), [-1, 2, 7], atol=1e-12)
    assert L.lanczos(product(np.zeros((4, 4))), jnp.ones(4), 3).matrix().tolist() == [[0.0]]


def test_orthogonality_holds_in_single_precision() -> None:
    d, k = 200, 60
    H = jnp.asarray(symmetric(d, eigenvalues=np.r_[100.0, 50.0, np.linspace(0, 1, d - 2)]), jnp.float32)
    found = L.lanczos(lambda v: H @ v, jnp.asarray(draws(1, d)[0], jnp.float32), k)
    basis = np.asarray(found.basis)
    assert np.abs(basis @ basis.T - np.eye(k)).max() < 1e-5
    assert (np.linalg.eigvalsh(np.asarray(found.matrix(), np.float64)) > 75).sum() == 1


def test_a_spectrum_s_moments_and_density_are_exact_for_their_starts_and_extremes_lie_in_their_bounds() -> None:
    d, steps, width = 10, 4, 0.2
    H, V = symmetric(d), draws(6, d)
    found = L.spectrum(product(H), jnp.asarray(V), steps)
    for k in range(2 * steps):
        assert found.moment(k).value == pytest.approx(R.spectral_moment(H, V, k), rel=1e-9, abs=1e-12)
    assert abs(found.moment(2 * steps).value - R.spectral_moment(H, V, 2 * steps)) > 1e-6, "degree 2k is not"
    values, basis = np.linalg.eigh(H)
    (low, below), (high, above) = found.extremes()
    assert min(abs(values - low)) <= below + 1e-12
    assert min(abs(values - high)) <= above + 1e-12
    assert found.smoothing() == pytest.approx(1.1 * (high - low) / (3 * np.sqrt(8 * np.log(3))))
    # Signs in the eigenbasis: every start weighs all eigenvalues alike, so a full quadrature is the spectrum itself.
    starts = jnp.asarray(draws(2, d, "rademacher") @ basis.T)
    grid = np.linspace(values[0] - 2, values[-1] + 2, 400)
    density = L.spectrum(product(H), starts, d).density(grid, width)
    np.testing.assert_allclose(density, R.density(values, grid, width), atol=1e-9)


def test_all_starts_share_one_compiled_program() -> None:
    traced = []
    matrix = jnp.asarray(symmetric(5))

    def apply(v: Array) -> Array:
        traced.append(0)
        return matrix @ v

    L.spectrum(apply, jnp.asarray(draws(2, 5)), 3)
    before = len(traced)
    L.spectrum(apply, jnp.asarray(draws(12, 5)), 3)
    assert len(traced) == 2 * before


def test_bad_lanczos_input_is_refused() -> None:
    one = jnp.ones(2)
    with pytest.raises(ValueError, match=r"steps = 0: must lie in \[1, inf\)"):
        L.lanczos(product(np.eye(2)), one, 0)
    for start in (0 * one, one / 0):
        with pytest.raises(ValueError, match=r"start: its length is (0|inf): must lie in \(0, inf\)"):
            L.lanczos(product(np.eye(2)), start, 1)
    with pytest.raises(CurvebenchError, match="lanczos: the product with the vector of step 1 is not finite"):
        L.lanczos(lambda v: v * float("nan"), one, 2)
    with pytest.raises(ValueError, match="starts: there is none"):
        L.spectrum(product(np.eye(2)), [], 1)
    with pytest.raises(ValueError, match=r"width = 0: must lie in \(0, inf\)"):
        L.spectrum(product(np.eye(2)), [one], 1).density(one, 0)
