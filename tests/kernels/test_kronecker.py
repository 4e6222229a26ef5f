"""Kronecker factors, solves and EKFAC's scaling against the NumPy definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from curvebench.errors import CurvebenchError
from curvebench.kernels import kronecker_torch as K
from curvebench.kernels import reference_kronecker as R

RNG = np.random.default_rng(0)


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def spd(n: int) -> np.ndarray:
    x = RNG.standard_normal((2 * n, n))
    return x.T @ x / (2 * n)


# -- rows and factors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 4), (3, 5, 4), (2, 3, 2, 4)])
def test_factors_of_linear_layers(shape: tuple[int, ...], bias: bool) -> None:
    x, g = RNG.standard_normal(shape), RNG.standard_normal((*shape[:-1], 3))
    gram, n, t = K.input_gram(tensor(x), None, bias)
    np.testing.assert_allclose(gram / (n * t), R.input_factor(R.rows(x, bias)), rtol=1e-13)
    np.testing.assert_allclose(K.input_rows(tensor(x), None, bias), R.rows(x, bias))
    outer = K.output_gram(tensor(g), None)
    np.testing.assert_allclose(outer / n, R.gradient_factor(g.reshape(shape[0], -1, 3)), rtol=1e-13)


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": (1, 0)},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": 2, "dilation": (2, 1)},
    {"kernel_size": 1},
    {"kernel_size": (5, 3), "padding": 2, "dilation": 2},
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_factors_of_convolutions(options: dict[str, object], bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(K, "CHUNK", 700)  # several chunks even here
    layer = nn.Conv2d(2, 3, bias=bias, dtype=torch.float64, **options)  # type: ignore[arg-type]
    x = RNG.standard_normal((4, 2, 11, 9))
    geo = K.geometry(layer)
    assert geo is not None
    pad = layer.padding
    a = R.patches(x, layer.kernel_size, layer.stride, pad, layer.dilation, bias)  # type: ignore[arg-type]
    gram, n, t = K.input_gram(tensor(x), geo, bias)
    assert (n, t) == a.shape[:2]
    np.testing.assert_allclose(gram / (n * t), R.input_factor(a), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(K.input_rows(tensor(x), geo, bias), a, rtol=1e-15)
    # The patches are the right ones if a product with the weights is the layer's output.
    W = layer.weight.detach().flatten(1).numpy()
    if bias:
        W = np.concatenate([W, layer.bias.detach().numpy()[:, None]], 1)
    out = layer(tensor(x)).detach()
    np.testing.assert_allclose(a @ W.T, K.output_rows(out, geo), rtol=1e-12, atol=1e-13)
    g = R.output_rows(out.numpy())
    np.testing.assert_allclose(K.output_gram(out, geo) / n, R.gradient_factor(g), rtol=1e-12)


PADDINGS: list[dict[str, Any]] = [
    {"padding": "same"},
    {"padding": "valid"},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": "same", "padding_mode": "reflect", "dilation": 2},
]


@pytest.mark.parametrize("options", PADDINGS, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
def test_patches_follow_every_kind_of_padding(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(2, 3, (3, 2), bias=False, dtype=torch.float64, **options)
    x = tensor(RNG.standard_normal((2, 2, 6, 5)))
    rows = K.input_rows(x, K.geometry(layer), False)
    torch.testing.assert_close(rows @ layer.weight.flatten(1).T, K.output_rows(layer(x), K.geometry(layer)))


@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (3, 1, 2, 2), (1, 2, 1, 4), (2, 2, 3, 1), (4, 5, 1, 1), (2, 2, 2, 7)])
def test_shifted_grams_are_exact(shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal(shape)
    a = R.patches(x, (3, 3), (1, 1), (1, 1)).reshape(-1, 9 * shape[1])
    gram, total = K.shifted_gram(tensor(x))
    np.testing.assert_allclose(gram, a.T @ a, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(total, a.sum(0), rtol=1e-12, atol=1e-12)


def test_only_same_3x3_kernels_take_the_shifted_path() -> None:
    assert K.geometry(nn.Conv2d(1, 1, 3, padding=1)).same3  # type: ignore[union-attr]
    assert K.geometry(nn.Conv2d(1, 1, 3, padding="same")).same3  # type: ignore[union-attr]
    others: list[dict[str, Any]] = [{}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2},
                                    {"padding": 1, "padding_mode": "circular"}]  # fmt: skip
    for layer in (nn.Conv2d(1, 1, 5, padding=2), *(nn.Conv2d(1, 1, 3, **options) for options in others)):
        assert not K.geometry(layer).same3  # type: ignore[union-attr]


def test_an_image_without_batch_dimension() -> None:
    layer = nn.Conv2d(2, 3, 3, stride=2)
    x = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    geo = K.geometry(layer)
    torch.testing.assert_close(K.input_gram(x, geo, True)[0], K.input_gram(x[None], geo, True)[0])
    assert K.output_rows(layer(x), K.geometry(layer)).shape == (1, 9, 3)


def test_groups_and_other_layers_are_refused() -> None:
    with pytest.raises(CurvebenchError, match="groups = 2"):
        K.geometry(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(CurvebenchError, match="Embedding has no Kronecker factors"):
        K.geometry(nn.Embedding(3, 2))


# -- solves ------------------------------------------------------------------------------------------------------------


def test_eigen_solve_is_the_dense_inverse_of_the_damped_block() -> None:
    A, G, W = spd(5), spd(3), RNG.standard_normal((3, 5))
    (dA, QA), (dG, QG) = K.eigenbasis(tensor(A)), K.eigenbasis(tensor(G))
    found = K.solve_eigen(tensor(W), QA, QG, torch.outer(dG, dA), 0.01)
    np.testing.assert_allclose(found, R.solve(A, G, W, 0.01), rtol=1e-10)


def test_inverse_solve_and_pi() -> None:
    A, G, W = spd(5), 30 * spd(3), RNG.standard_normal((3, 5))
    split = K.pi(tensor(A), tensor(G))
    assert float(split) == pytest.approx(R.pi(A, G), rel=1e-14)
    root = 0.01**0.5
    found = K.damped_inverse(tensor(G), root / split) @ tensor(W) @ K.damped_inverse(tensor(A), root * split)
    np.testing.assert_allclose(found, R.solve_factored(A, G, W, root * R.pi(A, G), root / R.pi(A, G)), rtol=1e-10)
    assert float(K.pi(tensor(A), torch.zeros(3, 3))) == 1.0


def test_negative_eigenvalues_of_rounding_are_zero() -> None:
    X = torch.diag(torch.tensor([1.0, -1e-9]))
    assert (K.eigenbasis(X)[0] >= 0).all()


def test_what_cannot_be_decomposed_raises() -> None:
    with pytest.raises(K.NOT_SOLVED):
        K.damped_inverse(-torch.eye(2), 0.5)


# -- EKFAC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 4])
def test_second_moments_and_their_trace(t: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(K, "CHUNK", 20)
    a, g = RNG.standard_normal((6, t, 5)), RNG.standard_normal((6, t, 3))
    QA, QG = np.linalg.qr(RNG.standard_normal((5, 5)))[0], np.linalg.qr(RNG.standard_normal((3, 3)))[0]
    S = K.second_moments(tensor(a), tensor(g), tensor(QA), tensor(QG)).numpy() / 6
    np.testing.assert_allclose(S, R.scaling(a, g, QA, QG), rtol=1e-11)
    assert S.sum() == pytest.approx(np.trace(R.fisher_block(a, g)), rel=1e-12)


def test_transport_keeps_the_trace_and_is_exact_for_a_permutation() -> None:
    S = tensor(RNG.random((3, 5)))
    QA, QG = (torch.linalg.qr(tensor(RNG.standard_normal((n, n))))[0] for n in (5, 3))
    RA, RG = (torch.linalg.qr(tensor(RNG.standard_normal((n, n))))[0] for n in (5, 3))
    assert float(K.transported(S, QA, QG, RA, RG).sum()) == pytest.approx(float(S.sum()), rel=1e-12)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(K.transported(S, QA, QG, QA[:, order], QG), S[:, order])


# -- Fisher ------------------------------------------------------------------------------------------------------------


def undrawn(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    raise AssertionError(f"type-2 columns draw nothing, but {kind} {shape}")


def drawn(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn if kind == "normal" else torch.rand)(shape, dtype=torch.float64, generator=generator)


def _hessian(outputs: np.ndarray, likelihood: str) -> np.ndarray:
    if likelihood == "gaussian":
        return np.stack([np.eye(outputs.shape[1])] * len(outputs))
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-outputs))
        return np.stack([np.diag(row * (1 - row)) for row in p])
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    return np.stack([np.diag(row) - np.outer(row, row) for row in p])


@pytest.mark.parametrize("likelihood", K.LIKELIHOODS)
def test_type_2_columns_sum_to_the_hessian(likelihood: str) -> None:
    o = RNG.standard_normal((4, 3))
    columns = torch.stack(list(K.fisher_columns(tensor(o), likelihood, "type-2", undrawn))).numpy()
    np.testing.assert_allclose(np.einsum("cni,cnj->nij", columns, columns), _hessian(o, likelihood), atol=1e-14)
    if likelihood != "bernoulli":
        np.testing.assert_allclose(columns, R.columns(o, likelihood), atol=1e-15)


@pytest.mark.parametrize("likelihood", K.LIKELIHOODS)
def test_sampled_gradients_have_the_hessian_as_covariance(likelihood: str) -> None:
    o, draws = RNG.standard_normal((2, 3)), 20_000
    many = tensor(np.repeat(o[None], draws, 0))
    (g,) = K.fisher_columns(many, likelihood, "mc", drawn)
    assert g.shape == many.shape
    mean = g.mean(0).numpy()
    covariance = torch.einsum("dni,dnj->nij", g, g).numpy() / draws
    bound = 5 * 3 / draws**0.5  # five standard errors of products of at most unit variance, kurtosis 3
    assert np.abs(mean).max() < bound
    assert np.abs(covariance - _hessian(o, likelihood)).max() < bound


def test_deep_linear_block_by_definition() -> None:
    """The premise of K-FAC: with one Jacobian for all samples, G kron A is the Gauss-Newton block."""
    x, J = RNG.standard_normal((6, 4)), RNG.standard_normal((3, 2))
    rows = R.rows(x, True)
    exact = sum(np.einsum("ok,pk,i,j->oipj", J, J, a, a) for a in rows[:, 0]).reshape(15, 15) / 6
    G = sum(R.gradient_factor(np.broadcast_to(J[:, c], (6, 1, 3))) for c in range(2))
    np.testing.assert_allclose(np.kron(G, R.input_factor(rows)), exact, rtol=1e-12)
