"""MKOR in jax: torch's trajectories, the released code's stored runs, half precision, state, bad input."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import layerwise
import numpy as np
import optax
import pytest
import tiny

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.methods.mkor_jax import mkor

GOLDEN = Path(__file__).parents[1] / "golden" / "mkor"
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"inverse_every": 3, "warmup_steps": 2, "clip": 0.1}),
    ("mlp", {"inverse_every": 1, "rule": "paper", "reset": "identity"}),
    ("conv", {"inverse_every": 1, "rule": "ema", "reset": "blend", "norm": "joint"}),
    ("norm", {"inverse_every": 2, "rule": "ema", "reset": "identity"}),
]


@pytest.mark.parametrize(("task", "given"), RUNS)
def test_ten_steps_of_torch_are_ten_steps_of_jax(task: str, given: dict[str, Any]) -> None:
    pair = layerwise.agree("mkor", task, {"lr": 0.3, **given}, 1e-9)
    every, warm = given["inverse_every"], given.get("warmup_steps", 0)
    asked = sum(step % every == 0 or step < warm for step in range(10))
    seen = layerwise.counts(pair[1])
    assert (seen["gradient"], seen["layer_statistics"], seen["samples"]) == (10, asked, (10 + asked) * pair[2])
    assert seen["inverse_updates"] == 2 * asked * len(pair[1].carry[2].layers)


def golden_model(stored: Any) -> tuple[Any, dict[str, np.ndarray]]:
    if "W" in stored:
        return lambda p, x, tap: tap("", x, x @ p["weight"].T + p["bias"]), {"weight": stored["W"], "bias": stored["b"]}

    def apply(p: Any, x: Any, tap: Any) -> Any:
        hidden = jnp.tanh(tap("0", x, x @ p["0.weight"].T + p["0.bias"]))
        return tap("2", hidden, hidden @ p["2.weight"].T)

    return apply, {"0.weight": stored["W1"], "0.bias": stored["b1"], "2.weight": stored["W2"]}


@pytest.mark.parametrize("name", ["fixed_f64", "fixed_f64_invfreq3_warm2", "linear3d_f64"])
def test_factors_and_gradients_of_the_released_code(name: str) -> None:
    stored = np.load(GOLDEN / f"{name}.npz")
    apply, arrays = golden_model(stored)
    flat = name == "linear3d_f64"
    divisor = 20 if flat else stored["X"].shape[2]
    given = {} if flat else {"inverse_every": int(stored["inv_freq"]), "warmup_steps": int(stored["warmup_steps"]),
                             "clip": float(stored["clip"])}  # fmt: skip
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, arrays)
        first = stored["X"][0] if flat else stored["X"][0, 0]
        # the step -1 of an SGD hands out the preconditioned gradient itself
        tx = mkor(layerwise.found(apply, params, first), base=optax.scale(1.0), **{"inverse_every": 1, **given})
        state = tx.init(params)
        step = layerwise.stepper(tx, apply, lambda o, c: (o * c).sum() / divisor)
        keys = {"": ("", "AA", "GG", "gfin")} if flat else {f"L{k + 1}_": (n, f"L{k + 1}_AA", f"L{k + 1}_GG",
                f"L{k + 1}_gfin") for k, n in enumerate(("0", "2"))}  # fmt: skip
        for t in range(len(stored["X"])):
            x, c = (stored[key][t] if flat else stored[key][t, 0] for key in ("X", "C"))
            gradient, state = step(params, state, (x, c))
            for layer, a, g, final in keys.values():
                np.testing.assert_allclose(state.layers[layer]["JA"], stored[a][t], atol=1e-13)
                np.testing.assert_allclose(state.layers[layer]["JG"], stored[g][t], atol=1e-13)
                np.testing.assert_allclose(layerwise.matrix(gradient, layer), stored[final][t], atol=1e-13)


def test_half_factors_stay_near_float64() -> None:
    stored = np.load(GOLDEN / "fixed_f64.npz")
    apply, arrays = golden_model(stored)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), arrays)
    for dtype, bound in ((jnp.float16, 2.5e-3),):
        tx = mkor(layerwise.found(apply, params, stored["X"][0, 0]), 0.1, inverse_every=1, factor_dtype=dtype)
        state = tx.init(params)
        step = layerwise.stepper(tx, apply, lambda o, c: (o * c).sum() / 16)
        for t in range(10):
            _, state = step(params, state, tuple(jnp.asarray(stored[k][t, 0], jnp.float32) for k in "XC"))
        for key, expected in (("JA", stored["L1_AA"][-1]), ("JG", stored["L1_GG"][-1])):
            found = state.layers["0"][key]
            assert found.dtype == dtype
            assert np.abs(np.asarray(found, np.float64) - expected).max() < bound


def test_a_step_whose_curvature_is_not_finite_changes_nothing_and_is_counted() -> None:
    running = layerwise.engine("mkor", "mlp", inverse_every=2, lr=0.1)
    for step in range(2):
        running.step(step, float("inf"))
    before = running.snapshot()
    inputs, targets = running._data
    running._data = inputs.at[:, 0].set(jnp.nan), targets
    running.step(2, float("inf"))
    after = running.snapshot()
    np.testing.assert_array_equal(tiny.flat(before[0]), tiny.flat(after[0]))
    assert jax.tree.all(jax.tree.map(np.array_equal, before[2].layers, after[2].layers))
    assert jax.tree.all(jax.tree.map(np.array_equal, before[2].base, after[2].base))
    assert running.notes() == ["1 of 3 steps skipped: the curvature was not finite"]


@functools.cache
def two_layers() -> Any:
    params = {"0.weight": jnp.zeros((3, 2)), "0.bias": jnp.zeros(3), "1.weight": jnp.zeros((2, 3)),
              "emb.weight": jnp.zeros((5, 2))}  # fmt: skip

    def apply(p: Any, x: Any, tap: Any) -> Any:
        hidden = tap("0", x, x @ p["0.weight"].T + p["0.bias"])
        return tap("1", hidden, hidden @ p["1.weight"].T)

    return layerwise.found(apply, params, jnp.zeros((4, 2)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inverse_every": 0}, r"mkor: inverse_every = 0: must lie in \[1, inf\)"),
        ({"inverse_every": 1.5}, r"mkor: inverse_every = 1.5: must be a whole number"),
        ({"warmup_steps": -1}, r"mkor: warmup_steps = -1: must lie in \[0, inf\)"),
        ({"rule": "eq5"}, "mkor: rule = 'eq5': must be one of 'code', 'ema', 'paper'"),
        ({"reset": "never"}, "mkor: reset = 'never': must be one of 'identity', 'blend'"),
        ({"clip": 0.0}, r"mkor: clip = 0.0: must lie in \(0, inf\)"),
        ({"norm": "max"}, "mkor: norm = 'max': must be one of 'sum', 'joint'"),
        ({"shared": "sum"}, "mkor: shared = 'sum': must be one of 'refuse', 'expand'"),
        ({"loss_reduction": "none"}, "mkor: loss_reduction = 'none': must be one of 'mean', 'sum'"),
        ({"factor_dtype": jnp.int32}, "mkor: factor_dtype = .*int32.*: must be floating"),
        ({"learning_rate": -0.1}, r"mkor: learning_rate = -0.1: must lie in \[0, inf\)"),
        ({"momentum": 1.0}, r"mkor: momentum = 1.0: must lie in \[0, 1\)"),
        ({"learning_rate": None}, "mkor: pass base, the optimiser that takes the step, or lr for an SGD"),
        ({"base": optax.sgd(0.1)}, "mkor: lr and momentum are the base optimiser's: set them there"),
        ({"skip": ["nope"]}, "mkor: skip: the model has no module named 'nope'"),
    ],
)
def test_bad_input(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        mkor(two_layers(), **{"learning_rate": 0.1, **given})


def test_layers_that_cannot_be_preconditioned(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CurvebenchError, match="mkor: the model has no Linear or Conv2d layer to precondition"):
        mkor(two_layers(), 0.1, skip=["0", "1"])
    mkor(two_layers(), 0.1, skip=["1"])
    assert caplog.messages[-1] == (
        "mkor: not preconditioned, their gradients go to the base optimiser unchanged: '1' (Linear, skipped on "
        "request), 'emb' (no tap watches it)"
    )
    with pytest.raises(CurvebenchError, match=r"'layer' was used 2 times in one forward: .* pass shared='expand'"):
        layerwise.engine("mkor", "twice")
