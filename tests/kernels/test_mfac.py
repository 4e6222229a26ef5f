"""M-FAC's kernels against the authors' outputs, the float64 reference, dense inverses, and each other."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels import mfac_static_torch, mfac_torch
from curvebench.kernels import reference_mfac as reference
from curvebench.kernels.mfac_static_torch import StaticInverse, obs_joint_update, obs_scores, obs_update
from curvebench.kernels.mfac_torch import SlidingWindow
from curvebench.kernels.precision_torch import full_precision

GOLDEN = Path(__file__).parents[1] / "golden" / "mfac"
F64 = 1e-9
Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def golden() -> Arrays:
    with np.load(GOLDEN / "m16_d100_damp1e-2.npz") as file:
        return dict(file)


def error(seen: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Largest deviation over the largest entry."""
    return float(np.abs(np.asarray(seen, dtype=np.float64) - expected).max() / np.abs(expected).max())


def window(
    G: np.ndarray, damping: float, dtype: torch.dtype = torch.float64, formula: str = "in-span"
) -> SlidingWindow:
    """A window that has seen the rows of ``G``."""
    ring = SlidingWindow(len(G), G.shape[1], damping, dtype=dtype, formula=formula)
    for row in G:
        assert ring.push(torch.tensor(row, dtype=dtype))
    return ring


def tall(rng: np.random.Generator, m: int, d: int, shared: float = 0.5) -> np.ndarray:
    """Gradients with a decaying spectrum and a direction in common, as those of training."""
    return rng.standard_normal((m, d)) / (1 + np.arange(d)) ** 0.5 + shared * rng.standard_normal(d)


# -- the reference itself ----------------------------------------------------------------------------------------------


def test_the_reference_agrees_with_the_authors(golden: Arrays) -> None:
    G, damp = golden["G"], float(golden["damp"])
    V, delta = reference.recursion(G, damp)
    assert error(V, golden["static_Hg"]) < F64
    assert error(delta, golden["static_denom"]) < F64
    assert error(reference.recursion_diagonal(V, delta, damp), golden["static_diag"]) < F64
    assert (
        error(np.array([reference.recursion_product(V, delta, damp, x) for x in golden["X"]]), golden["static_ihvp"])
        < F64
    )
    elements = [reference.recursion_element(V, delta, damp, i, j) for i, j in golden["elem_ij"]]
    assert error(np.array(elements), golden["elem_val"]) < F64
    assert error(reference.inverse(G, damp), golden["dense_inverse"]) < F64
    blocked = reference.inverse(G, damp, int(golden["block_size"]))
    assert error(golden["X"] @ blocked, golden["block_ihvp"]) < F64
    assert error(np.diag(blocked), golden["block_diag"]) < F64
    D, B = reference.coefficients(golden["dyn_GGt_after"], damp)
    assert error(D, golden["dyn_D_after"]) < F64
    assert error(B, golden["dyn_B_after"]) < F64
    assert error(len(G) + np.diag(D), golden["dyn_denom_after"]) < F64
    for tag, inverse in (("full", golden["dense_inverse"]), ("block", blocked)):
        assert error(reference.obs_scores(golden["w"], np.diag(inverse)), golden[f"obs_{tag}_score"]) < F64
        moved = reference.obs_update(inverse, golden["w"], golden[f"obs_{tag}_drop"])
        assert error(moved, golden[f"obs_{tag}_w_after"]) < F64


def test_all_formulas_of_the_reference_agree() -> None:
    rng = np.random.default_rng(0)
    for m, d in ((1, 5), (4, 9), (6, 3)):
        G, x, damp = tall(rng, m, d), rng.standard_normal(d), 0.03
        dense = reference.inverse(G, damp)
        V, delta = reference.recursion(G, damp)
        for seen in (reference.recursion_product(V, delta, damp, x), reference.woodbury(G, damp, x),
                     reference.official(G, damp, x)):  # fmt: skip
            assert error(seen, dense @ x) < F64
        assert error(reference.in_span(G, damp, m - 1), dense @ G[-1]) < F64


# -- dynamic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", mfac_torch.FORMULAS)
def test_filling_and_sliding_float64(golden: Arrays, formula: str) -> None:
    G, S, damp = golden["G"], golden["S"], float(golden["damp"])
    ring = SlidingWindow(len(G), G.shape[1], damp, dtype=torch.float64, formula=formula)
    filled = []
    for row in G:
        assert ring.push(torch.tensor(row))
        filled.append(ring.direction())
    seen = torch.stack([filled[i] for i in golden["dyn_fill_idx"]])
    assert error(seen, golden["dyn_f64_fill_ihvp"]) < F64
    assert error(seen, golden["dense_fill_ihvp"]) < F64
    X = torch.tensor(golden["X"])
    assert error(torch.stack([ring.solve(x) for x in X]), golden["dyn_f64_filled_ihvp_X"]) < F64
    slid: list[torch.Tensor | None] = []
    for row in S:
        slid.append(ring.update(torch.tensor(row)))
    assert error(torch.stack(slid), golden["dyn_f64_slide_ihvp"]) < F64
    assert error(torch.stack(slid), golden["dense_slide_ihvp"]) < F64
    assert error(torch.stack([ring.solve(x) for x in X]), golden["dyn_after_ihvp_X"]) < F64
    assert np.array_equal(ring.gradients, golden["dyn_window_after"])
    assert error(ring.gram, golden["dyn_GGt_after"]) < F64
    assert ring.slot == golden["dyn_next_slot"]


def test_float32(golden: Arrays) -> None:
    """In span: precise. The official formula: as imprecise as the authors', by the bound of its cancellation."""
    G, damp, eps = golden["G"], float(golden["damp"]), float(np.finfo(np.float32).eps)
    bound = 5 * eps * float(np.linalg.cond(reference.fisher(G, damp)))
    rings = {f: window(G, damp, torch.float32, f) for f in mfac_torch.FORMULAS}
    for ring in rings.values():
        solved = torch.stack([ring.solve(torch.tensor(x, dtype=torch.float32)) for x in golden["X"]])
        assert error(solved, golden["dyn_f32_filled_ihvp_X"]) < 1e-5
    slid: dict[str, list[torch.Tensor]] = {f: [] for f in rings}
    for row in golden["S"]:
        for f, ring in rings.items():
            ring.push(torch.tensor(row, dtype=torch.float32))
            slid[f].append(ring.direction())
    assert error(torch.stack(slid["in-span"]), golden["dense_slide_ihvp"]) < 2e-6
    assert error(torch.stack(slid["official"]), golden["dyn_f32_slide_ihvp"]) < bound
    assert error(torch.stack(slid["official"]), golden["dense_slide_ihvp"]) < bound


@pytest.mark.parametrize(
    ("m", "d", "damping", "shared"), [(32, 1000, 1e-5, 0.0), (16, 100, 1e-5, 1.0), (64, 1000, 1e-3, 1.0)]
)
def test_float32_in_the_window_where_the_official_code_fails(m: int, d: int, damping: float, shared: float) -> None:
    rng = np.random.default_rng(m)
    G = rng.standard_normal((m, d)) + shared * 10 * rng.standard_normal(d)
    G = G.astype(np.float32).astype(np.float64)
    exact = reference.in_span(G, damping, m - 1)
    assert error(window(G, damping, torch.float32).direction(), exact) < 1e-6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mfac_torch, "SMALL", 0)  # as a window of any size
        assert error(window(G, damping, torch.float32).direction(), exact) < 5e-4
    official = window(G, damping, torch.float32, "official")
    assert error(official.direction(), exact) > (0.1 if shared == 0 else 1e-2)  # the specification's 0.73 and 0.17
    assert error(official.solve(official.gradients[-1]), exact) > 1e-2


def test_float32_with_nearly_parallel_gradients() -> None:
    """The worst case: differences of gradients matter, and only a float64 S holds them."""
    rng = np.random.default_rng(5)
    G = rng.standard_normal(3000) + 3e-3 * rng.standard_normal((24, 3000))
    G = (G / np.sqrt(3000)).astype(np.float32).astype(np.float64)
    ring = window(G, 1e-7, torch.float32)
    exact = reference.in_span(G, 1e-7, 23)
    fine = error(ring.direction(), exact)
    ring.store.copy_(ring.store.float())
    coarse = error(ring.direction(), exact)
    assert fine < 1e-6
    assert coarse > 1e-3


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 25), st.floats(1e-2, 10), st.integers(0, 10**6))
def test_any_shape(m: int, d: int, steps: int, damping: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ring = SlidingWindow(m, d, damping, dtype=torch.float64)
    G = np.zeros((m, d))
    for t in range(steps):
        g = rng.standard_normal(d) * 10.0 ** rng.integers(-2, 2)
        G[t % m] = g
        assert ring.push(torch.tensor(g))
        assert error(ring.direction(), np.linalg.solve(reference.fisher(G, damping), g)) < 1e-8
    x = rng.standard_normal(d)
    assert error(ring.solve(torch.tensor(x)), np.linalg.solve(reference.fisher(G, damping), x)) < 1e-8


def test_long_vectors_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mfac_torch, "SMALL", 0)
    G = np.random.default_rng(0).standard_normal((5, 1003)).astype(np.float32)
    whole = window(G, 0.1, torch.float32)
    monkeypatch.setattr(mfac_torch, "PIECE", 100)
    pieces = window(G, 0.1, torch.float32)
    exact = G.astype(np.float64) @ G.astype(np.float64).T
    assert error(pieces.gram, exact) < 1e-7
    assert error(whole.gram, exact) < 1e-6
    assert error(pieces.direction(), np.asarray(whole.direction(), dtype=np.float64)) < 1e-6


def test_an_update_takes_gradients_with_a_graph_and_any_setting_of_the_process() -> None:
    G = tall(np.random.default_rng(3), 5, 40)
    plain, other = window(G, 0.1), window(G, 0.1)
    g = torch.tensor(np.random.default_rng(4).standard_normal(40))
    expected = plain.update(g)
    assert expected is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = other.update((g.clone().requires_grad_() * 1).view(40))
    assert found is not None
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert plain.update(g * torch.nan) is None
    assert torch.equal(plain.gradients, other.gradients)


def test_direction_accumulates_into_what_is_given() -> None:
    G = tall(np.random.default_rng(1), 4, 7)
    for formula in mfac_torch.FORMULAS:
        ring = window(G, 0.1, formula=formula)
        v = torch.arange(7.0, dtype=torch.float64)
        expected = 0.9 * v.numpy() + 0.1 * reference.in_span(G, 0.1, 3)
        assert ring.direction(v, keep=0.9, scale=0.1) is v
        assert error(v, expected) < F64
        v.fill_(torch.nan)
        assert error(ring.direction(v), reference.in_span(G, 0.1, 3)) < F64


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_what_is_not_finite_leaves_no_trace(bad: float) -> None:
    ring = window(tall(np.random.default_rng(2), 3, 6).astype(np.float32), 0.1, torch.float32)
    before = (ring.gradients.clone(), ring.store.clone(), ring.slot)
    gradient = torch.ones(6)
    gradient[4] = bad
    assert not ring.push(gradient)
    assert ring.update(gradient) is None
    assert torch.equal(before[0], ring.gradients)
    assert torch.equal(before[1], ring.store)
    assert before[2] == ring.slot


def test_widening_counts_the_past_as_zero() -> None:
    rng = np.random.default_rng(3)
    G = tall(rng, 3, 5)
    ring = window(G, 0.1)
    ring.widen(8)
    g = rng.standard_normal(8)
    assert ring.push(torch.tensor(g))
    G = np.hstack([G, np.zeros((3, 3))])
    G[0] = g
    assert error(ring.direction(), reference.in_span(G, 0.1, 0)) < F64


def test_a_singular_gram_matrix_is_no_obstacle() -> None:
    """Equal gradients, damping below the rounding of S: the result stays finite and in their direction."""
    g = torch.full((50,), 3.0)
    ring = SlidingWindow(6, 50, 1e-30)
    for _ in range(6):
        assert ring.push(g)
    u = ring.direction()
    assert bool(u.isfinite().all())
    assert torch.allclose(u, u[0].expand(50))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"window": 0}, r"window = 0: must lie in \[1, inf\)"),
        ({"damping": 0.0}, r"damping = 0\.0: must lie in \(0, inf\)"),
        ({"damping": float("nan")}, r"damping = nan: must lie in \(0, inf\)"),
        ({"formula": "exact"}, "formula = 'exact': must be one of 'in-span', 'official'"),
        ({"dtype": torch.float16}, r"dtype = torch\.float16: must be"),
    ],
)
def test_bad_values_are_named(given_: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        SlidingWindow(**{"window": 2, "dimension": 3, "damping": 0.1, **given_})  # type: ignore[arg-type]


def test_products_are_full_precision_whatever_is_allowed_outside() -> None:
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with full_precision(torch.device("cpu")):
                assert backend.fp32_precision == "ieee"
                assert not torch.is_autocast_enabled("cpu")
            assert backend.fp32_precision == "tf32"
            assert torch.is_autocast_enabled("cpu")
            G = tall(np.random.default_rng(4), 6, 40).astype(np.float32)
            exact = reference.inverse(G.astype(np.float64), 0.1)
            assert error(StaticInverse(torch.tensor(G), 0.1).ihvp(torch.tensor(G[0])), exact @ G[0]) < 1e-4
            assert error(window(G, 0.1, torch.float32).direction(), exact @ G[-1]) < 1e-5
    finally:
        backend.fp32_precision = before


# -- static ------------------------------------------------------------------------------------------------------------


def test_static_agrees_with_the_authors(golden: Arrays) -> None:
    G = torch.tensor(golden["G"])
    inverse = StaticInverse(G, float(golden["damp"]))
    assert error(inverse.ihvp(torch.tensor(golden["X"])), golden["static_ihvp"]) < F64
    assert error(inverse.ihvp(torch.tensor(golden["X"][1])), golden["dense_ihvp"][1]) < F64
    assert error(inverse.ihvp(G[:4]), golden["static_ihvp_of_G"]) < F64
    assert error(inverse.ihvp(G[:4]), golden["dense_ihvp_of_G"]) < F64
    assert error(inverse.diagonal(), golden["static_diag"]) < F64
    assert error(inverse.diagonal(), golden["dense_diag"]) < F64
    i, j = torch.tensor(golden["elem_ij"]).T
    assert error(inverse.elements(i, j), golden["elem_val"]) < F64
    assert np.array_equal(G, golden["G"]), "the gradients were overwritten"


def test_paged_equals_unpaged(golden: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = golden["G"].shape[1] // int(golden["paged_npages"])
    monkeypatch.setattr(mfac_static_torch, "PIECE_BYTES", 8 * 16 * columns)
    monkeypatch.setattr(mfac_static_torch, "ROWS", 5)
    inverse = StaticInverse(torch.tensor(golden["G"]), float(golden["damp"]), device="cpu")
    assert error(inverse.ihvp(torch.tensor(golden["X"])), golden["paged_ihvp"]) < F64
    assert error(inverse.diagonal(), golden["static_diag"]) < F64


@pytest.mark.parametrize("batch_bytes", [1, 1 << 28])
def test_blocks_agree_with_the_authors(golden: Arrays, monkeypatch: pytest.MonkeyPatch, batch_bytes: int) -> None:
    monkeypatch.setattr(mfac_static_torch, "BATCH_BYTES", batch_bytes)
    inverse = StaticInverse(torch.tensor(golden["G"]), float(golden["damp"]), block=int(golden["block_size"]))
    assert error(inverse.ihvp(torch.tensor(golden["X"])), golden["block_ihvp"]) < F64
    assert error(inverse.diagonal(), golden["block_diag"]) < F64


@pytest.mark.parametrize("tag", ["full", "block"])
def test_pruning_agrees_with_the_authors(golden: Arrays, tag: str) -> None:
    block = int(golden["block_size"]) if tag == "block" else None
    inverse = StaticInverse(torch.tensor(golden["G"]), float(golden["damp"]), block=block)
    w, diagonal = torch.tensor(golden["w"]), inverse.diagonal()
    scores = obs_scores(w, diagonal)
    assert error(scores, golden[f"obs_{tag}_score"]) < F64
    order = torch.argsort(scores)[: len(w) // 2]
    assert np.array_equal(order.sort().values, golden[f"obs_{tag}_drop"])
    moved = obs_update(inverse, w, diagonal, order)
    assert error(moved, golden[f"obs_{tag}_w_after"]) < F64
    step = torch.zeros_like(w)
    step[order] = -w[order] / diagonal[order]
    assert error((w + inverse.ihvp(step))[order], golden[f"obs_{tag}_residual_before_zeroing"]) < F64
    assert np.array_equal(w, golden["w"])


def test_removing_one_weight_is_exact() -> None:
    """OBS for one weight is the constrained minimiser of the quadratic model: the score is what it costs."""
    rng = np.random.default_rng(6)
    G, w = tall(rng, 5, 8), rng.standard_normal(8)
    inverse = StaticInverse(torch.tensor(G), 0.2)
    diagonal = inverse.diagonal()
    moved = obs_update(inverse, torch.tensor(w), diagonal, torch.tensor([3])).numpy()
    F = reference.fisher(G, 0.2)
    others = [p for p in range(8) if p != 3]
    best = -np.linalg.solve(F[np.ix_(others, others)], F[others, 3] * -w[3])
    assert error((moved - w)[others], best) < F64
    rise = (moved - w) @ F @ (moved - w) / 2
    assert float(obs_scores(torch.tensor(w), diagonal)[3]) == pytest.approx(rise, rel=F64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_joint_removal_is_the_one_beside_the_authors_outputs(golden: Arrays, dtype: torch.dtype) -> None:
    inverse = StaticInverse(torch.tensor(golden["G"], dtype=dtype), float(golden["damp"]))
    w, drop = torch.tensor(golden["w"], dtype=dtype), torch.tensor(golden["obs_full_drop"])
    expected = golden["obs_full_w_after_joint_exact"]
    joint = obs_joint_update(inverse, w, drop)
    assert error(joint, expected) < (F64 if dtype == torch.float64 else 1e-3)
    assert (
        error(reference.obs_joint_update(golden["dense_inverse"], golden["w"], golden["obs_full_drop"]), expected) < F64
    )
    F, w0 = reference.fisher(golden["G"], float(golden["damp"])), golden["w"]

    def rise(x: np.ndarray) -> float:
        return float((x - w0) @ F @ (x - w0) / 2)

    assert rise(joint.double().numpy()) < rise(golden["obs_full_w_after"]), "the sum of single removals is no better"
    assert torch.equal(obs_joint_update(inverse, w, drop[:0]), w)


@given(st.integers(1, 8), st.integers(1, 30), st.integers(1, 35), st.floats(1e-3, 10), st.integers(0, 10**6))
def test_static_of_any_shape(m: int, d: int, block: int, damping: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    G, X = rng.standard_normal((m, d)), rng.standard_normal((3, d))
    for size in (None, block):
        dense = reference.inverse(G, damping, size)
        inverse = StaticInverse(torch.tensor(G), damping, block=size)
        assert error(inverse.ihvp(torch.tensor(X)), X @ dense) < 1e-8
        assert error(inverse.diagonal(), np.diag(dense)) < 1e-8
        i, j = torch.cartesian_prod(torch.arange(d), torch.arange(d)).T
        assert error(inverse.elements(i, j).view(d, d), dense) < 1e-8


def test_long_blocks_are_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mfac_static_torch, "PIECE_BYTES", 8 * 7 * 10)
    monkeypatch.setattr(mfac_static_torch, "ROWS", 3)
    rng = np.random.default_rng(7)
    G, x = tall(rng, 7, 95), rng.standard_normal(95)
    for block in (None, 30):
        inverse = StaticInverse(torch.tensor(G), 0.1, block=block)
        assert error(inverse.ihvp(torch.tensor(x)), reference.inverse(G, 0.1, block) @ x) < F64


def test_the_two_factors_are_the_authors_recursion(golden: Arrays) -> None:
    """``V_k = sqrt(delta_k / damping) Z_k``: the rows of the authors' code, from two matrix products."""
    G, damp = golden["G"], float(golden["damp"])
    Z = StaticInverse(torch.tensor(G), damp)._spans[0].factor[0].numpy()
    V = Z * np.sqrt(golden["static_denom"] / damp)[:, None]
    assert error(V, golden["static_Hg"]) < F64


def test_static_refuses() -> None:
    G = torch.ones(2, 3)
    with pytest.raises(HyperparameterError, match=r"damping = -1\.0: must lie in \(0, inf\)"):
        StaticInverse(G, -1.0)
    with pytest.raises(HyperparameterError, match=r"block = 0: must lie in \[1, inf\)"):
        StaticInverse(G, 1.0, block=0)
    with pytest.raises(CurvebenchError, match=r"shape \[3\].*must be \[m, d\]"):
        StaticInverse(G[0], 1.0)
    with pytest.raises(CurvebenchError, match="float32 or float64"):
        StaticInverse(G.half(), 1.0)
    with pytest.raises(CurvebenchError, match="not finite"):
        StaticInverse(G * torch.nan, 1.0)
    with pytest.raises(IndexError, match=r"must lie in \[0, 3\)"):
        StaticInverse(G, 1.0).elements(torch.tensor([0]), torch.tensor([3]))


def test_a_copied_window_has_arrays_of_its_own() -> None:
    rng = np.random.default_rng(6)
    for m in (4, 101):
        ring = window(tall(rng, m, 200), 0.1)
        twin = copy.deepcopy(ring)
        g, h = torch.tensor(rng.standard_normal(200)), torch.tensor(rng.standard_normal(200))
        before = ring.gradients.clone()
        twin.push(g)
        assert torch.equal(ring.gradients, before)
        ring.push(h)
        for one, new in ((ring, h), (twin, g)):
            G = one.gradients.numpy()
            assert np.array_equal(G[0], new)
            assert error(one.gram, G @ G.T) < F64
            assert error(one.direction(), reference.in_span(G, 0.1, 0)) < F64
