"""Estimators from losses alone in jax: DeepZero's own numbers, the NumPy definitions, bad options of the methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from curvebench.errors import HyperparameterError
from curvebench.jax import forward_gradient, hizoo, mezo_momentum, zo_adam, zo_cge, zo_sgd, zo_sign
from curvebench.kernels import reference_zeroth as reference
from curvebench.kernels.zeroth_jax import coordinate_gradient, factors, random_gradient

NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "zeroth" / "deepzero_estimators.npz")
Params = dict[str, Any]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


def golden(prefix: str, names: tuple[str, ...] = NAMES) -> Params:
    return {name: GOLDEN[f"{prefix}/{name}"] for name in names}


def mlp(p: Params) -> jax.Array:
    hidden = jnp.tanh(GOLDEN["x"] @ p["0.weight"].T + p["0.bias"])
    logits = jax.nn.log_softmax(hidden @ p["2.weight"].T + p["2.bias"])
    return -jnp.mean(logits[np.arange(len(logits)), GOLDEN["y"]])


def worst(a: Params, b: Params) -> float:
    return max(float(np.abs(a[n] - b[n]).max()) for n in b)


@pytest.mark.parametrize("mu", [0.005, 0.001, 1e-06])
def test_cge_is_deepzeros(mu: float) -> None:
    seen = jax.jit(lambda p: coordinate_gradient(mlp, p, mu=mu))(golden("param"))
    assert float(seen.loss) == pytest.approx(float(GOLDEN["base_loss"]), abs=1e-14)
    assert worst(seen.gradient, golden(f"cge_mu{mu}")) < max(1e-10, 1e-15 / mu)


def test_masked_cge_is_deepzeros() -> None:
    names = ("0.weight_orig", "0.bias", "2.weight_orig", "2.bias")
    masks = {f"{i}.weight": GOLDEN[f"masked/mask/{i}.weight_mask"] for i in (0, 2)}

    def pruned(p: Params) -> jax.Array:
        return mlp({n: p[given] * masks.get(n, 1.0) for n, given in zip(NAMES, names, strict=True)})

    order = [masks.get(n.replace("_orig", "")) for n in sorted(names)]
    seen = jax.jit(lambda p: coordinate_gradient(pruned, p, mu=0.005, masks=order))(golden("masked/param", names))
    assert float(seen.loss) == pytest.approx(float(GOLDEN["masked/base_loss"]), abs=1e-14)
    assert worst(seen.gradient, golden("masked/cge_mu0.005", names)) < 1e-10
    assert not np.asarray(seen.gradient["0.weight_orig"])[masks["0.weight"] == 0].any()


def test_rge_is_deepzeros_up_to_its_scale() -> None:
    """As shipped: the mean of (f(theta + mu u) - f(theta)) u, u unit per array; mu / d_l times the unbiased one."""
    directions = {n: jnp.asarray(GOLDEN[f"rge_q16_dirs/{n}"]) for n in NAMES}
    for law in ("gaussian", "tensor-sphere"):
        seen = random_gradient(
            mlp, golden("param"), lambda i: {n: u[i] for n, u in directions.items()}, mu=0.005, queries=16, law=law
        )
        scaled = {n: g * 0.005 / (1 if law == "gaussian" else g.size) for n, g in seen.gradient.items()}
        assert worst(scaled, golden("rge_q16_mu0.005")) < 1e-10


@pytest.mark.parametrize("law", ["gaussian", "sphere"])
@pytest.mark.parametrize("central", [False, True])
def test_they_are_the_definitions(central: bool, law: str) -> None:
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal(6), rng.standard_normal((4, 6))

    def f(x: Any) -> Any:
        return (x[1:] - x[:-1] ** 2) @ (x[1:] - x[:-1] ** 2) + (1 - x[0]) ** 2

    params = {"a": jnp.asarray(x[:2]), "b": jnp.asarray(x[2:].reshape(2, 2))}

    def tree(p: Params) -> jax.Array:
        return jnp.asarray(f(jnp.concatenate([p["a"], p["b"].reshape(-1)])))

    rows = jnp.asarray(z)
    seen = random_gradient(tree, params, lambda i: {"a": rows[i, :2], "b": rows[i, 2:].reshape(2, 2)}, mu=1e-2,
                           queries=4, central=central, law=law)  # fmt: skip
    u, factor = (z, 1.0) if law == "gaussian" else reference.unit_directions(z)
    expected = reference.random_gradient(f, x, u, 1e-2, central=central, factor=factor)
    found = np.concatenate([seen.gradient["a"], np.ravel(seen.gradient["b"])])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    seen = coordinate_gradient(tree, params, mu=1e-2, central=central)
    found = np.concatenate([seen.gradient["a"], np.ravel(seen.gradient["b"])])
    np.testing.assert_allclose(found, reference.coordinate_gradient(f, x, 1e-2, central=central), rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match="law = 'cauchy': must be one of 'gaussian', 'sphere', 'tensor-sphere'"):
        factors(params, "cauchy")


@pytest.mark.parametrize(
    ("constructor", "wrong", "sentence"),
    [
        (zo_sgd, {"mu": 0.0}, r"zo_sgd: mu = 0.0: must lie in \(0, inf\)"),
        (zo_sgd, {"queries": 0}, r"zo_sgd: queries = 0: must lie in \[1, inf\)"),
        (zo_sgd, {"law": "cauchy"}, "zo_sgd: law = 'cauchy': must be one of 'gaussian', 'sphere', 'tensor-sphere'"),
        (zo_sgd, {"momentum": 1.0}, r"zo_sgd: momentum = 1.0: must lie in \[0, 1\)"),
        (zo_cge, {"mu": -1e-3}, r"zo_cge: mu = -0.001: must lie in \(0, inf\)"),
        (zo_adam, {"b2": 1.0}, r"zo_adam: b2 = 1.0: must lie in \[0, 1\)"),
        (zo_sign, {"mu": 0.0}, "zo_sign: mu = 0.0"),
        (mezo_momentum, {"restore": "hope"}, "mezo_momentum: restore = 'hope': must be one of 'replay', 'copy'"),
        (hizoo, {"alpha": 1.5}, r"hizoo: alpha = 1.5: must lie in \[0, 1\]"),
        (forward_gradient, {"queries": 0}, "forward_gradient: queries = 0"),
    ],
)
def test_each_option_has_its_range(constructor: Callable[..., Any], wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HyperparameterError, match=sentence):
        constructor(0.1, **wrong)
    with pytest.raises(HyperparameterError, match=rf"{constructor.__name__}: learning_rate = -1.0: must"):
        constructor(-1.0)
    with pytest.raises(TypeError, match=f"{constructor.__name__}: a parameter has dtype int32: must be floating"):
        constructor(0.1).init({"w": jnp.zeros(2, jnp.int32)})
    if constructor is zo_cge:
        with pytest.raises(HyperparameterError, match="zo_cge: mask: must be one per parameter, of its shape, or None"):
            zo_cge(0.1, mask=[np.ones(3)]).init({"w": jnp.zeros(2)})
    if constructor is zo_adam:
        with pytest.raises(TypeError, match="zo_adam: a parameter has dtype bfloat16: must be float32 or float64"):
            zo_adam(0.1).init({"w": jnp.zeros(2, jnp.bfloat16)})
