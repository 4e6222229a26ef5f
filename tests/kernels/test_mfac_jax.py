"""M-FAC's kernels in jax: the authors' numbers, float32, memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from curvebench.errors import HyperparameterError
from curvebench.kernels import mfac_jax as kernel
from curvebench.kernels import reference_mfac as reference
from curvebench.methods.mfac_jax import mfac
from curvebench.oracle.standalone_jax import oracle

GOLDEN = Path(__file__).parents[1] / "golden" / "mfac"
F64 = 1e-9


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "m16_d100_damp1e-2.npz") as file:
        return dict(file)


def error(a: Any, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max())


@jax.jit
def fill(ring: kernel.SlidingWindow, rows: jax.Array) -> kernel.SlidingWindow:
    return jax.lax.scan(lambda ring, g: (kernel.push(ring, g)[0], None), ring, rows)[0]


def window(G: np.ndarray, dtype: Any) -> kernel.SlidingWindow:
    return fill(kernel.sliding_window(*G.shape, dtype), jnp.asarray(G, dtype))


@partial(jax.jit, static_argnames=("formula", "damping"))
def slide(ring: Any, rows: Any, formula: str, damping: float) -> Any:
    def one(ring: Any, g: Any) -> Any:
        ring, _ = kernel.push(ring, g)
        return ring, kernel.direction(ring, damping, formula=formula)

    return jax.lax.scan(one, ring, rows)


@pytest.mark.parametrize("formula", kernel.FORMULAS)
@pytest.mark.parametrize("tag", ["f64", "f32"])
def test_the_window_agrees_with_the_authors(golden: dict[str, np.ndarray], tag: str, formula: str) -> None:
    damping, wide = float(golden["damp"]), tag == "f64"
    cond = float(np.linalg.cond(reference.fisher(golden["G"], damping)))
    with jax.enable_x64(wide):
        dtype = jnp.float64 if wide else jnp.float32
        empty = kernel.sliding_window(*golden["G"].shape, dtype)
        ring, filling = slide(empty, jnp.asarray(golden["G"], dtype), formula, damping)
        solve = jax.jit(lambda ring, x: kernel.solve(ring, damping, x, formula=formula))
        for x, expected in zip(golden["X"], golden[f"dyn_{tag}_filled_ihvp_X"], strict=True):
            assert error(solve(ring, jnp.asarray(x, dtype)), expected) < (F64 if wide else 1e-5)
        ring, slid = slide(ring, jnp.asarray(golden["S"], dtype), formula, damping)
        near = F64 if wide else 1e-4 if formula == "in-span" else 5 * 1.2e-7 * cond
        assert error(filling[golden["dyn_fill_idx"]], golden["dense_fill_ihvp"]) < near
        assert error(slid, golden["dense_slide_ihvp"]) < near
        assert error(slid, golden[f"dyn_{tag}_slide_ihvp"]) < max(near, F64 if wide else 5 * 1.2e-7 * cond)
        if wide:
            assert error(ring.gradients, golden["dyn_window_after"]) == 0
            assert error(ring.gram.sum(0), golden["dyn_GGt_after"]) < F64
            assert int(ring.slot) == int(golden["dyn_next_slot"])


@pytest.mark.parametrize(
    ("m", "d", "damping", "shared"), [(32, 1000, 1e-5, 0.0), (16, 100, 1e-5, 1.0), (8, 150_000, 1e-3, 1.0)]
)
def test_float32_in_the_window_where_the_official_code_fails(m: int, d: int, damping: float, shared: float) -> None:
    """Without x64 outside: S is a sum of two float32 numbers, its system is solved in float64."""
    rng = np.random.default_rng(m)
    G = rng.standard_normal((m, d)) + shared * 10 * rng.standard_normal(d)
    G = G.astype(np.float32).astype(np.float64)
    ring = window(G, jnp.float32)
    assert ring.gram.dtype == jnp.float32
    exact = reference.in_span(G, damping, m - 1)
    assert error(jax.jit(lambda r: kernel.direction(r, damping))(ring), exact) < 1e-4
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(("m", "d", "steps"), [(1, 1, 3), (3, 7, 2), (5, 40, 12)])
def test_any_shape(m: int, d: int, steps: int) -> None:
    rng = np.random.default_rng(m)
    G, rows = np.zeros((m, d)), rng.standard_normal((steps, d)) * 10.0 ** rng.integers(-2, 2, (steps, 1))
    with jax.enable_x64(True):
        ring, found = slide(kernel.sliding_window(m, d, jnp.float64), jnp.asarray(rows), "in-span", 0.1)
        for t, (row, u) in enumerate(zip(rows, found, strict=True)):
            G[t % m] = row
            assert error(u, np.linalg.solve(reference.fisher(G, 0.1), row)) < 1e-8
        x = rng.standard_normal(d)
        assert error(kernel.solve(ring, 0.1, jnp.asarray(x)), np.linalg.solve(reference.fisher(G, 0.1), x)) < 1e-8
        wide = kernel.widen(ring, d + 2)
        assert wide.gradients.shape == (m, d + 2)
        assert not wide.gradients[:, d:].any()


def test_a_singular_gram_matrix_is_no_obstacle() -> None:
    ring = window(np.full((6, 50), 3.0), jnp.float32)
    u = kernel.direction(ring, 1e-30)
    assert bool(jnp.isfinite(u).all())
    np.testing.assert_allclose(u, np.full(50, u[0]), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_not_finite_leaves_no_trace(bad: float) -> None:
    ring = window(np.random.default_rng(2).standard_normal((3, 6)), jnp.float32)
    after, finite = jax.jit(kernel.push)(ring, jnp.ones(6).at[4].set(bad))
    assert not finite
    assert all(np.array_equal(a, b) for a, b in zip(ring, after, strict=True))


def test_a_donated_window_is_overwritten_where_it_lies() -> None:
    """Without donation a step holds two windows, by the compiler's own account."""
    m, d = 16, 50_000
    ring = kernel.sliding_window(m, d)

    def step(ring: Any, g: Any) -> Any:
        ring, _ = kernel.push(ring, g)
        return ring, kernel.direction(ring, 0.1)

    def more(donate: tuple[int, ...]) -> float:
        found: Any = jax.jit(step, donate_argnums=donate).lower(ring, jnp.ones(d)).compile().memory_analysis()
        return float(found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes) / (4 * m * d)

    assert more((0,)) < 2.2 / m  # the direction, and what is made of one row
    assert more(()) > 1.0


def test_the_authors_trajectory() -> None:
    with np.load(GOLDEN / "opt_plain.npz") as file:
        opt = dict(file)
    sizes = [int(np.prod([n for n in row if n])) for row in opt["shapes"]]
    cuts = np.cumsum(sizes)[:-1]
    words = {"learning_rate": "lr", "damping": "damp", "momentum": "momentum", "weight_decay": "weight_decay"}
    given = {name: float(opt[word]) for name, word in words.items()}
    for dtype, kind, tolerance in ((np.float64, "f64", F64), (np.float64, "dense", F64), (np.float32, "dense", 2e-5)):
        with jax.enable_x64(dtype is np.float64):
            tx = mfac(window=int(opt["m"]), **given)
            params = [jnp.asarray(part, dtype) for part in np.split(opt["params_f64"][0], cuts)]
            state = tx.init(params)

            @jax.jit
            def step(params: Any, state: Any, gradient: Any, tx: Any = tx) -> Any:
                linear = oracle(lambda p: sum(jnp.vdot(g, q) for g, q in zip(gradient, p, strict=True)))
                updates, state = tx.update(None, state, params, oracle=linear)
                return [p + u for p, u in zip(params, updates, strict=True)], state

            path = [opt["params_f64"][0]]
            for gradient in opt["grads"]:
                params, state = step(params, state, [jnp.asarray(g, dtype) for g in np.split(gradient, cuts)])
                path.append(np.concatenate([np.asarray(p, np.float64) for p in params]))
            expected = opt[f"params_{kind}"]
            assert np.abs(path - expected).max() / np.abs(expected - expected[0]).max() < tolerance


def test_steps_that_are_not_finite_are_skipped_and_counted() -> None:
    tx, params = mfac(0.1, window=3, damping=0.1, momentum=0.5), {"w": jnp.ones(4)}
    state = tx.init(params)
    updates, state = tx.update(None, state, params, oracle=oracle(lambda p: jnp.sum(p["w"])))
    assert float(jnp.abs(updates["w"]).max()) > 0
    updates, after = tx.update(None, state, params, oracle=oracle(lambda p: jnp.nan * jnp.sum(p["w"])))
    assert not updates["w"].any()
    assert int(after.skipped) == 1
    assert np.array_equal(after.velocity, state.velocity)
    half = {"w": jnp.ones(4, jnp.bfloat16)}
    assert tx.init(half).ring.gradients.dtype == jnp.float32


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("learning_rate", -1.0, r"mfac: learning_rate = -1.0: must lie in \[0, inf\)"),
        ("window", 0, r"mfac: window = 0: must lie in \[1, inf\)"),
        ("window", 2.5, r"mfac: window = 2\.5: must be a whole number"),
        ("damping", 0.0, r"mfac: damping = 0\.0: must lie in \(0, inf\)"),
        ("momentum", 1.0, r"mfac: momentum = 1\.0: must lie in \[0, 1\)"),
        ("weight_decay", -1.0, r"mfac: weight_decay = -1\.0: must lie in \[0, inf\)"),
        ("formula", "exact", "mfac: formula = 'exact': must be one of 'in-span', 'official'"),
    ],
)
def test_bad_values_are_named(option: str, value: Any, sentence: str) -> None:
    with pytest.raises(HyperparameterError, match=sentence):
        mfac(**{option: value})
    ring = kernel.sliding_window(2, 3)
    calls: tuple[Any, ...] = (
        lambda: kernel.sliding_window(0, 3), lambda: kernel.sliding_window(2, 3, jnp.float16),
        lambda: kernel.direction(ring, 0.0), lambda: kernel.solve(ring, 0.1, jnp.ones(3), formula="x"),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(HyperparameterError, match="M-FAC: "):
            call()
    with pytest.raises(TypeError, match="mfac: a parameter has dtype int32: must be floating"):
        mfac().init({"w": jnp.zeros(2, jnp.int32)})
