"""StableMax, orthogonal gradients, the cosine basis, TrAct's and Eva's maps against their NumPy definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch

from curvebench.kernels import reference_transforms as reference
from curvebench.kernels.dct_torch import carried, dct_basis, select
from curvebench.kernels.first_layer_torch import tract_gradient
from curvebench.kernels.orthogonal_torch import orthogonal_gradient
from curvebench.kernels.rank_one_torch import eva_direction
from curvebench.kernels.stablemax_torch import log_stablemax, stablemax_cross_entropy

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# -- StableMax ---------------------------------------------------------------------------------------------------------


def test_stablemax_equals_its_reference() -> None:
    logits, y = 5 * draw(40, 7), np.random.default_rng(1).integers(0, 7, 40)
    logits[0] = 0
    found = stablemax_cross_entropy(torch.tensor(logits), torch.tensor(y))
    assert float(found) == pytest.approx(reference.stablemax_cross_entropy(logits, y), rel=1e-13)
    assert torch.allclose(log_stablemax(torch.tensor(logits)).exp().sum(1), torch.ones(40, dtype=F64), atol=1e-13)


def test_stablemax_has_two_derivatives_also_at_zero() -> None:
    y = torch.tensor([0, 2, 1])
    z = torch.tensor(draw(3, 4)).requires_grad_()

    def loss(z: torch.Tensor) -> torch.Tensor:
        return stablemax_cross_entropy(z, y)

    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)
    zero = torch.zeros(3, 4, dtype=F64, requires_grad=True)  # both pieces of s have slope 1 there
    (gradient,) = torch.autograd.grad(loss(zero), zero)
    expected = (torch.full((3, 4), 0.25, dtype=F64) - torch.nn.functional.one_hot(y, 4)) / 3
    assert torch.allclose(gradient, expected, atol=1e-15)


def test_stablemax_keeps_a_gradient_where_softmax_has_none() -> None:
    """Softmax collapse: float32 logits so far apart that cross-entropy's gradient is exactly zero."""
    y = torch.tensor([0])
    z = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    for loss, survives in ((torch.nn.functional.cross_entropy, False), (stablemax_cross_entropy, True)):
        value = loss(z, y)
        assert value.dtype == torch.float32
        (gradient,) = torch.autograd.grad(value, z)
        assert bool(gradient.abs().max() > 0) == survives


def test_stablemax_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"logits \(3,\) and targets \(3,\): must be \[batch, C\] and \[batch\]"):
        stablemax_cross_entropy(torch.zeros(3), torch.zeros(3, dtype=torch.int64))


# -- orthogonal gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [False, True])
def test_the_orthogonal_gradient_is_orthogonal_and_equals_its_reference(rescale: bool) -> None:
    w, g = draw(3, 4, 2), draw(3, 4, 2, seed=1)
    found = orthogonal_gradient(torch.tensor(w), torch.tensor(g), rescale).numpy()
    assert np.allclose(found, reference.orthogonal_gradient(w, g, rescale=rescale), atol=1e-14)
    assert abs(np.vdot(found, w)) < 1e-13
    assert (np.linalg.norm(found) == pytest.approx(np.linalg.norm(g))) == rescale


def test_zero_weights_and_zero_gradients_give_no_nan() -> None:
    g, zero = torch.ones(3), torch.zeros(3)
    assert torch.equal(orthogonal_gradient(zero, g, True), g)
    assert torch.equal(orthogonal_gradient(g, zero, True), zero)


# -- the cosine basis --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_the_cosine_basis_is_orthogonal_and_is_the_dct(n: int) -> None:
    Q = dct_basis(n, F64, torch.device("cpu"))
    assert torch.allclose(Q.T @ Q, torch.eye(n, dtype=F64), atol=1e-13)
    assert np.allclose(Q, reference.dct_basis(n), atol=1e-14)
    G = draw(5, n)
    assert np.allclose(G @ Q.numpy(), scipy.fft.dct(G, norm="ortho", axis=1), atol=1e-13)


def test_the_columns_with_the_largest_l1_norm_are_selected() -> None:
    S = torch.tensor([[1.0, -5.0, 2.0, 0.5], [1.0, 0.0, -2.0, 0.5]])
    assert select(S, 2).tolist() == [1, 2]
    assert select(S, 4).tolist() == [0, 1, 2, 3]


def test_moments_are_carried_by_the_product_of_the_two_bases() -> None:
    Q = torch.tensor(reference.dct_basis(6))
    before, now = torch.tensor([0, 2, 5]), torch.tensor([1, 2, 5])
    m = torch.tensor(draw(4, 3))
    assert torch.allclose(carried(m, before, now), m @ Q[:, before].T @ Q[:, now], atol=1e-14)


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "n"), [(20, 6), (6, 20), (1, 8), (8, 8)])
def test_tract_equals_the_brute_force_formula_on_both_sides_of_the_identity(b: int, n: int) -> None:
    x, dz = draw(b, n), draw(b, 3, seed=1)
    found = tract_gradient(torch.tensor(x), torch.tensor(dz), 0.1)
    assert found is not None
    assert np.allclose(found, reference.tract_gradient(x, dz, 0.1), atol=1e-12)


def test_tract_is_ridge_regression_of_the_activation_step() -> None:
    """``argmin_D |x D' + lr dz|^2 / b + lam |D|^2`` is ``-lr / b`` times TrAct's (regression-tasks.md, M18)."""
    x, dz, lam, lr, b = draw(50, 6), draw(50, 3, seed=1), 0.2, 0.3, 50
    A = np.concatenate([x / np.sqrt(b), np.sqrt(lam) * np.eye(6)])
    target = np.concatenate([-lr * dz / np.sqrt(b), np.zeros((6, 3))])
    found = tract_gradient(torch.tensor(x), torch.tensor(dz), lam)
    assert found is not None
    assert np.allclose(np.linalg.lstsq(A, target)[0].T, -lr / b * found.numpy(), atol=1e-12)


def test_tract_of_inputs_that_are_not_finite_is_none() -> None:
    x = torch.full((9, 2), float("nan"))
    assert tract_gradient(x, torch.ones(9, 3), 0.1) is None


def test_eva_equals_the_inverse_of_the_dense_matrix() -> None:
    W, a, g = draw(3, 5), draw(5, seed=1), draw(3, seed=2)
    found = eva_direction(*(torch.tensor(t) for t in (W, a, g)), 0.05)
    assert np.allclose(found, reference.eva_direction(W, a, g, 0.05), atol=1e-11)
