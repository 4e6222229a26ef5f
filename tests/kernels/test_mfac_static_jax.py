"""M-FAC's static inverse in jax: the authors' numbers, blocks, pruning, and bad input as in torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import mfac_static_jax as kernel
from curvebench.kernels import reference_mfac as reference
from curvebench.kernels.mfac_static_jax import StaticInverse, obs_joint_update, obs_scores, obs_update

GOLDEN = Path(__file__).parents[1] / "golden" / "mfac"
F64 = 1e-9


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "m16_d100_damp1e-2.npz") as file:
        return dict(file)


def error(a: Any, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max())


@pytest.mark.parametrize("tag", ["full", "block"])
def test_products_diagonal_and_pruning_are_the_authors(golden: dict[str, np.ndarray], tag: str) -> None:
    block = int(golden["block_size"]) if tag == "block" else None
    inverse = StaticInverse(jnp.asarray(golden["G"]), float(golden["damp"]), block=block)
    kind = "block" if block else "static"
    assert error(inverse.ihvp(jnp.asarray(golden["X"])), golden[f"{kind}_ihvp"]) < F64
    diagonal, w = inverse.diagonal(), jnp.asarray(golden["w"])
    assert error(diagonal, golden[f"{kind}_diag"]) < F64
    scores = obs_scores(w, diagonal)
    assert error(scores, golden[f"obs_{tag}_score"]) < F64
    drop = jnp.argsort(scores)[: len(w) // 2]
    assert np.array_equal(jnp.sort(drop), golden[f"obs_{tag}_drop"])
    assert error(obs_update(inverse, w, diagonal, drop), golden[f"obs_{tag}_w_after"]) < F64
    if block is None:
        i, j = jnp.asarray(golden["elem_ij"]).T
        assert error(inverse.elements(i, j), golden["elem_val"]) < F64
        joint = obs_joint_update(inverse, w, jnp.asarray(golden["obs_full_drop"]))
        assert error(joint, golden["obs_full_w_after_joint_exact"]) < F64
        assert np.array_equal(obs_joint_update(inverse, w, drop[:0]), w)


@pytest.mark.parametrize(("m", "d", "block"), [(3, 11, None), (3, 11, 4), (6, 11, 4), (4, 4, 1), (2, 5, 9)])
def test_every_shape_of_block_is_the_dense_inverse(m: int, d: int, block: int | None) -> None:
    rng = np.random.default_rng(m * d)
    G, x = rng.standard_normal((m, d)), rng.standard_normal(d)
    dense, inverse = reference.inverse(G, 0.3, block), StaticInverse(jnp.asarray(G), 0.3, block=block)
    assert error(inverse.ihvp(jnp.asarray(x)), dense @ x) < 1e-10
    assert error(inverse.diagonal(), np.diag(dense)) < 1e-10
    i, j = (a.reshape(-1) for a in jnp.meshgrid(jnp.arange(d), jnp.arange(d), indexing="ij"))
    assert error(inverse.elements(i, j).reshape(d, d), dense) < 1e-10


def test_float32_gradients_are_summed_in_pieces_and_solved_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without x64 outside: the error is that of rounding the factor, not of its condition."""
    monkeypatch.setattr(kernel, "PIECE_BYTES", 4 * 7 * 10)  # ten columns
    G = np.random.default_rng(7).standard_normal((7, 95)).astype(np.float32)
    with jax.enable_x64(False):
        inverse = StaticInverse(jnp.asarray(G), 0.1)
        found = inverse.ihvp(jnp.asarray(G[0]))
        assert found.dtype == jnp.float32
        traced = jax.jit(inverse.ihvp)(jnp.asarray(G[0]))
    exact = reference.inverse(G.astype(np.float64), 0.1)
    assert error(found, exact @ G[0]) < 1e-5
    assert error(traced, exact @ G[0]) < 1e-5


def test_bad_input_is_refused_as_in_torch() -> None:
    G = jnp.ones((2, 3))
    with pytest.raises(HyperparameterError, match=r"damping = -1\.0: must lie in \(0, inf\)"):
        StaticInverse(G, -1.0)
    with pytest.raises(HyperparameterError, match=r"block = 0: must lie in \[1, inf\)"):
        StaticInverse(G, 1.0, block=0)
    with pytest.raises(CurvebenchError, match=r"shape \[3\].*must be \[m, d\]"):
        StaticInverse(G[0], 1.0)
    with pytest.raises(CurvebenchError, match="float32 or float64"):
        StaticInverse(G.astype(jnp.float16), 1.0)
    with pytest.raises(CurvebenchError, match="not finite"):
        StaticInverse(G * jnp.nan, 1.0)
    with pytest.raises(IndexError, match=r"must lie in \[0, 3\)"):
        StaticInverse(G, 1.0).elements(jnp.array([0]), jnp.array([3]))
