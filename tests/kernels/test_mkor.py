"""MKOR's rank-one rules against the definitions and the stored sequences; half precision; rescaling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from curvebench.kernels import kronecker_torch as K
from curvebench.kernels import mkor_torch as M
from curvebench.kernels import reference_kronecker as R

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "mkor" / "variants_derived.npz")
NAMES = {"code": "code", "paper": "paper_literal", "ema": "exact_ema"}
RNG = np.random.default_rng(0)


def run(rule: str, vectors: np.ndarray, blend: bool = False) -> tuple[np.ndarray, np.ndarray]:
    J = torch.eye(vectors.shape[1], dtype=torch.float64)
    found, flags = [], []
    for v in vectors:
        flags.append(bool(J.abs().max() > M.LIMIT))
        J = M.rank_one(M.blended(J) if blend else J, torch.from_numpy(v), rule)
        found.append(J.numpy())
    return np.stack(found), np.array(flags)


@pytest.mark.parametrize("rule", M.RULES)
def test_short_sequences(rule: str) -> None:
    np.testing.assert_allclose(run(rule, GOLDEN["V"])[0], GOLDEN[NAMES[rule]], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", M.RULES)
def test_long_sequences(rule: str) -> None:
    expected = GOLDEN[f"long_{NAMES[rule]}"]
    found = run(rule, GOLDEN["V_long"])[0]
    assert np.abs(found - expected).max() <= 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("rule", M.RULES)
def test_long_sequences_with_the_stabiliser(rule: str) -> None:
    expected = GOLDEN[f"long_{NAMES[rule]}_stab"]
    found, flags = run(rule, GOLDEN["V_long"], blend=True)
    assert np.abs(found - expected).max() <= 1e-11 * np.abs(expected).max()
    np.testing.assert_array_equal(flags, GOLDEN[f"long_{NAMES[rule]}_stab_flag"])


def test_ema_is_the_inverse_of_the_updated_factor() -> None:
    L, J = np.eye(9), torch.eye(9, dtype=torch.float64)
    for v, stored in zip(GOLDEN["V"], GOLDEN["L_ema"], strict=True):
        L = M.GAMMA * L + (1 - M.GAMMA) * np.outer(v, v)
        J = M.rank_one(J, torch.from_numpy(v), "ema")
        np.testing.assert_allclose(L, stored, rtol=1e-13)
        np.testing.assert_allclose(J.numpy() @ L, np.eye(9), atol=1e-13)


@pytest.mark.parametrize("rule", M.RULES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 40.0])
def test_rules_against_the_definitions(rule: str, size: float) -> None:
    x = RNG.standard_normal((8, 5))
    J, v = np.linalg.inv(x.T @ x / 8 + 0.1 * np.eye(5)), size * RNG.standard_normal(5)
    expected = R.rank_one(J, v, rule)
    before = torch.from_numpy(J.copy())
    found = M.rank_one(before, torch.from_numpy(v), rule)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_array_equal(before, J)  # the old factor stays


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_become_a_silent_no_op(dtype: torch.dtype) -> None:
    v = torch.full((1024,), 10.0, dtype=torch.float64)  # |v|^2 = 102400 > 65504, the largest number of fp16
    J = M.rank_one(torch.eye(1024, dtype=dtype), v, "code")
    assert J.dtype == dtype
    exact = M.rank_one(torch.eye(1024, dtype=torch.float64), v, "code")
    assert float((J.double() - exact).abs().max()) < 4 * torch.finfo(dtype).eps
    assert float(J[0, 1]) != 0.0


def test_vectors_of_any_length_stay_finite() -> None:
    v = torch.full((4,), 1e30)  # its square overflows float32
    J = M.rank_one(torch.eye(4), v, "code")
    torch.testing.assert_close(J, torch.eye(4) - 0.25)


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "dilation": (1, 2), "padding": (2, 0)}], ids=str)
def test_mean_input_of_a_convolution(options: dict[str, object]) -> None:
    layer = nn.Conv2d(2, 3, (3, 2), **options)  # type: ignore[arg-type]
    x = RNG.standard_normal((4, 2, 7, 8))
    a = R.patches(x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, True)  # type: ignore[arg-type]
    mean = M.mean_input(torch.from_numpy(x), K.geometry(layer), True, 100.0, 1.0)
    np.testing.assert_allclose(mean, a.mean((0, 1)), rtol=1e-12, atol=1e-14)
    clipped = M.mean_input(torch.from_numpy(x), K.geometry(layer), True, 0.1, 0.5)
    np.testing.assert_allclose(clipped, np.clip(a.mean(1) / 2, -0.1, 0.1).mean(0), rtol=1e-12, atol=1e-14)


def test_mean_gradient_and_clip() -> None:
    g = RNG.standard_normal((4, 5, 3))
    np.testing.assert_allclose(M.mean_gradient(torch.from_numpy(g), None, 0.7, 2.0),
                               np.clip(2 * g, -0.7, 0.7).mean((0, 1)), rtol=1e-13)  # fmt: skip
    image = RNG.standard_normal((4, 3, 2, 2))
    geo = K.geometry(nn.Conv2d(1, 3, 3))
    np.testing.assert_allclose(M.mean_gradient(torch.from_numpy(image), geo, 100.0, 4.0), 4 * image.mean((0, 2, 3)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", M.NORMS)
def test_rescaling(bias: bool, norm: str) -> None:
    W, U = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4))

    def length(X: np.ndarray) -> torch.Tensor:
        t = torch.from_numpy(X)
        return M.length(t[:, :-1], t[:, -1], norm) if bias else M.length(t, None, norm)

    expected = R.rescaled(W, U, bias) if norm == "sum" else R.rescaled(W, U, False)
    np.testing.assert_allclose(float(length(W) / length(U)) * U, expected, rtol=1e-14)
    zero = np.zeros((3, 4))
    assert not (length(W) / length(zero)).isfinite()
    assert not (length(zero) / length(zero)).isfinite()


@pytest.mark.parametrize("bias", [True, False])
def test_preconditioning_without_the_matrix_of_weights_and_biases(bias: bool) -> None:
    x = RNG.standard_normal((20, 5))
    JA, JG, W = x.T @ x / 20, np.diag(RNG.random(3)), RNG.standard_normal((3, 5))
    parts = [torch.from_numpy(X) for X in (JG, JA, W[:, :4].copy() if bias else W)]
    U, c = M.preconditioned(*parts, torch.from_numpy(W[:, 4].copy()) if bias else None)
    found = U if c is None else torch.cat([U, c[:, None]], 1)
    np.testing.assert_allclose(found, JG @ W @ JA, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", M.RULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_diagonal_foretells_the_largest_element(rule: str, dtype: torch.dtype) -> None:
    J = torch.eye(9, dtype=dtype)
    for v in GOLDEN["V_long"]:
        step = M.rank_one_step(J, torch.from_numpy(v), rule)
        after = M.diagonal_after(J, step)
        J = M.update_(J, step)
        top = float(J.double().abs().max())
        if not np.isfinite(top):  # equation 5 outgrows half precision: foretold before it is carried out
            assert float(after.max()) > torch.finfo(dtype).max
            break
        assert float(M.largest(J)) == pytest.approx(top, rel=1e-12 if dtype == torch.float64 else 2e-3)
        assert float(after.max()) == pytest.approx(top, rel=1e-12 if dtype == torch.float64 else 2e-3)


def test_largest_element() -> None:
    assert float(M.largest(torch.tensor([[3.0, -1.0], [-1.0, 0.5]]))) == 3.0
    assert M.largest(torch.eye(2, dtype=torch.float16)).dtype == torch.float32
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not M.largest(torch.diag(torch.tensor([1.0, bad]))).isfinite()
