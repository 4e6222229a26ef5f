"""The jax transformations in somebody's own optax loop: six lines, plain pytrees, no second set of parameters."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import curvebench.jax
from curvebench.errors import CurvebenchError, HyperparameterError, UndeclaredQueryError
from curvebench.jax import (
    adahessian,
    forward_gradient,
    hizoo,
    mezo,
    mezo_momentum,
    mfac,
    oracle,
    sophia_h,
    zo_adam,
    zo_cge,
    zo_sgd,
    zo_sign,
)  # fmt: skip
from curvebench.methods.in_place_jax import InPlace

X = np.random.default_rng(0).standard_normal((24, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5]) + 0.3).astype(np.float32)
METHODS: dict[str, tuple[Callable[[], Any], float]] = {
    "adahessian": (lambda: adahessian(0.1), 0.3),
    "sophia_h": (lambda: sophia_h(0.1, hessian_every=2), 0.5),
    "mfac": (lambda: mfac(0.1, window=4, damping=1.0, momentum=0.5), 0.5),
    "mezo": (lambda: mezo(0.02), 0.5),
    "mezo_momentum": (lambda: mezo_momentum(0.01, momentum=0.5), 0.5),
    "hizoo": (lambda: hizoo(0.02, eps=1e-2, alpha=1e-4), 0.5),
    "zo_sgd": (lambda: zo_sgd(0.05, momentum=0.5), 0.5),
    "zo_sign": (lambda: zo_sign(0.02), 0.5),
    "zo_adam": (lambda: zo_adam(0.05), 0.5),
    "zo_cge": (lambda: zo_cge(0.1, momentum=0.5), 0.5),
    "forward_gradient": (lambda: forward_gradient(0.03, queries=2), 0.5),
}
"""Constructor, and by what the loss falls in sixty steps."""
IN_PLACE = ("mezo", "mezo_momentum", "hizoo")
START = {"layer": {"w": np.zeros((3, 4), np.float32), "b": np.zeros(4, np.float32)}, "out": [np.ones(4, np.float32)]}


def loss(params: Any, batch: Any) -> jax.Array:
    x, y = batch
    hidden = jnp.tanh(x @ params["layer"]["w"] + params["layer"]["b"] + 0.1)
    return jnp.mean((hidden @ params["out"][0] - y) ** 2)


def loop(tx: Any) -> Callable[..., Any]:
    """The ordinary loop of the documentation."""

    @jax.jit
    def step(params: Any, state: Any, batch: Any, key: Any) -> Any:
        updates, state = tx.update(None, state, params, oracle=oracle(lambda p: loss(p, batch), key))
        return optax.apply_updates(params, updates), state

    return step


def batch(t: int) -> Any:
    rows = slice(8 * (t % 3), 8 * (t % 3) + 8)
    return X[rows], Y[rows]


def run(step: Any, params: Any, state: Any, first: int, last: int) -> Any:
    for t in range(first, last):
        params, state = step(params, state, batch(t), jax.random.fold_in(jax.random.key(1), t))
    return params, state


@pytest.fixture(autouse=True)
def _strict() -> object:
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.mark.parametrize("name", METHODS)
def test_descends_compiles_once_and_goes_on_from_plain_arrays(name: str) -> None:
    make, falls = METHODS[name]
    tx = make()
    step = loop(tx)
    start = jax.tree.map(jnp.asarray, START)
    params, state = run(step, start, tx.init(start), 0, 30)
    leaves, shape = jax.tree.flatten((params, state))
    file = io.BytesIO()
    np.savez(file, *map(np.asarray, leaves))
    end, _ = run(step, params, state, 30, 60)
    assert step._cache_size() == 1, "one program for every step"
    assert float(loss(end, (X, Y))) < falls * float(loss(start, (X, Y)))
    file.seek(0)
    with np.load(file) as saved:
        params, state = jax.tree.unflatten(shape, [jnp.asarray(saved[k]) for k in saved.files])
    again, _ = run(loop(make()), params, state, 30, 60)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(again), strict=True))


def test_everything_exported_is_a_transformation_with_words_for_its_options() -> None:
    for name in set(curvebench.jax.__all__) - {"oracle", "model_oracle", "Geometry", "find_layers"}:
        first, *others = inspect.signature(getattr(curvebench.jax, name)).parameters.values()
        assert first.name in ("learning_rate", "history", "layers"), name
        if first.name == "learning_rate":
            assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in others), name


def test_an_oracle_says_what_it_lacks() -> None:
    params = {"w": jnp.ones(3)}
    with pytest.raises(CurvebenchError, match=r"needs a key, another one in every step: oracle\(loss, jax.random"):
        mezo(0.1).update(None, (), params, oracle=oracle(lambda p: p["w"].sum()))
    with pytest.raises(UndeclaredQueryError, match="per_sample_gradient"):
        oracle(lambda p: p["w"].sum()).at(params).per_sample_gradient()


@pytest.mark.parametrize("name", IN_PLACE)
def test_the_step_in_place_is_the_update(name: str) -> None:
    tx = METHODS[name][0]()
    assert isinstance(tx, InPlace)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) + 0.3, START)
        params["big"] = jnp.ones(100_001)  # drawn in parts

        def f(p: Any) -> jax.Array:
            return jnp.sum(p["layer"]["w"] ** 2) + jnp.sum(p["big"][:50_000] * 1e-3) + jnp.sum(p["out"][0] ** 2)

        @jax.jit
        def both(params: Any) -> Any:
            given = oracle(f, jax.random.key(3))
            updates, _ = tx.update(None, tx.init(params), params, oracle=given)
            return optax.apply_updates(params, updates), tx.step(params, tx.init(params), given)[0]

        one, other = both(params)
        for a, b, p in zip(*map(jax.tree.leaves, (one, other, params)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
            assert float(jnp.abs(a - p).max()) > 0


def wide(names: str = "abcd") -> Any:
    return {n: jnp.asarray(np.random.default_rng(i).standard_normal((600, 600)) / 25, jnp.float32)
            for i, n in enumerate(names)}  # fmt: skip


def through(params: Any) -> jax.Array:
    h = jnp.ones((2, 600))
    for w in params.values():
        h = jnp.tanh(h @ w)
    return jnp.mean(h**2)


@pytest.mark.parametrize("name", ["mezo"])  # the others hold 1.5 to 2.8 sets of parameters: their pages say so
def test_a_donated_step_holds_no_second_set_of_parameters(name: str) -> None:
    """The compiler's own account: without donation the step makes new parameters, with it nothing but chunks."""
    tx, params = METHODS[name][0](), wide()
    size = sum(p.nbytes for p in params.values())

    def step(params: Any, state: Any, key: Any) -> Any:
        return tx.step(params, state, oracle(through, key))

    def needs(donate: tuple[int, ...]) -> float:
        compiled = jax.jit(step, donate_argnums=donate).lower(params, tx.init(params), jax.random.key(0)).compile()
        m: Any = compiled.memory_analysis()
        return float(m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes) / size

    assert needs((0, 1)) < 0.3  # a few chunks of 128 KiB beside 5.8 MB
    assert needs(()) > 1.0


@pytest.mark.parametrize("name", IN_PLACE)
def test_replay_drifts_by_rounding_only_and_is_refused_in_half_precision(name: str) -> None:
    constructor: Any = getattr(curvebench.jax, name)
    tx, start = constructor(0.0), {"w": wide("a")["a"]}

    @jax.jit
    def steps(params: Any) -> Any:
        def one(t: Any, carry: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(0), t)
            return tx.step(*carry, oracle(lambda p: jnp.sum(p["w"] ** 2), key))

        return jax.lax.fori_loop(0, 1000, one, (params, tx.init(params)))[0]

    moved = np.asarray(steps({"w": start["w"][:40, :25]})["w"])
    before = np.asarray(start["w"][:40, :25])
    drift = float(np.linalg.norm(moved - before) / np.linalg.norm(before))
    print(f"{name}: {drift:.1e} in 1000 float32 steps")
    assert 0 < drift <= 5e-6
    half = {"w": jnp.zeros((2, 2), jnp.bfloat16)}
    with pytest.raises(HyperparameterError, match=rf"{name}: restore = 'replay' with bfloat16 .* use restore='copy'"):
        tx.init(half)
    exact = constructor(0.0, restore="copy")
    moved = exact.step(half, exact.init(half), oracle(lambda p: p["w"].sum(dtype=jnp.float32), jax.random.key(0)))[0]
    assert np.array_equal(moved["w"], half["w"])
    with pytest.raises(TypeError, match=rf"{name}: a parameter has dtype int32: must be floating"):
        tx.init({"w": jnp.zeros(2, jnp.int32)})
