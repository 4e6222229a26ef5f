"""AdaHessian as an optax transformation; the update is that of :mod:`curvebench.methods.adahessian_torch`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from curvebench.methods.averaging import Averaging, plan, resolve
from curvebench.methods.validation import check
from curvebench.spec import Query


class AdaHessianState(NamedTuple):
    """Where the run is, and the two moments.

    Args:
        step: steps so far, skipped ones included, ``[]``.
        hessians: Hessians that entered ``v``, ``[]``.
        m: first moment of g, a tree like the parameters.
        v: second moment of D, likewise.
        skipped: steps that were not taken because g or D^2 was not finite, ``[]``.
    """

    step: Array
    hessians: Array
    m: Any
    v: Any
    skipped: Array


def adahessian(
    learning_rate: float,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-4,
    weight_decay: float = 0.0,
    hessian_power: float = 1.0,
    averaging: Averaging = "conv",
    hessian_every: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """AdaHessian; ``update(grads, state, params, oracle=...)`` asks the oracle for the gradient and ``H z``.

    Args:
        learning_rate: step size, >= 0.
        b1: decay rate of the gradient's moment, in [0, 1).
        b2: decay rate of the curvature's moment, in [0, 1).
        eps: added outside the root, > 0.
        weight_decay: decoupled decay, multiplied by the step size, >= 0.
        hessian_power: ``k`` in (0, 1].
        averaging: ``'conv'``, ``'row'``, ``'none'`` or four block sizes, as in torch.
        hessian_every: a new Hessian every so many steps; the others run one gradient only.

    A step whose gradient or squared diagonal is not finite changes nothing and is counted in the state's ``skipped``.

    Raises:
        HyperparameterError: a value outside its range.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("b1", b1, "[0, 1)"), ("b2", b2, "[0, 1)"),
        ("eps", eps, "(0, inf)"), ("weight_decay", weight_decay, "[0, inf)"),
        ("hessian_power", hessian_power, "(0, 1]"), ("hessian_every", hessian_every, "[1, inf)"),
    ):  # fmt: skip
        check("adahessian", name, value, allowed)
    averaging = resolve("adahessian", averaging)

    def init(params: Any) -> AdaHessianState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        nothing = jnp.zeros((), jnp.int32)
        return AdaHessianState(nothing, nothing, zeros, zeros, nothing)

    def update(grads: Any, state: AdaHessianState, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra  # the gradient comes from the point, which shares its forward with H z

        def second(_: None) -> tuple[Any, Any]:
            point = oracle.at(params, needs=(Query.GRADIENT, Query.HVP))
            gradient = point.gradient()
            product = point.hvp(oracle.probes("rademacher", "hutchinson", params))
            d = jax.tree.map(lambda hz: average(jnp.abs(hz), averaging), product)
            return gradient, jax.tree.map(lambda v, h: b2 * v + (1 - b2) * h * h, state.v, d)

        def first(_: None) -> tuple[Any, Any]:
            return oracle.at(params, needs=(Query.GRADIENT,)).gradient(), state.v

        new = state.step % hessian_every == 0
        g, v = second(None) if hessian_every == 1 else oracle.cond(new, second, first, None)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((g, v))]).all()
        t = state.step + 1 - state.skipped
        h = state.hessians + (new & finite).astype(jnp.int32)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.m, g)

        def move(p: Array, m: Array, v: Array) -> Array:
            mean = m / (1 - jnp.asarray(b1, p.dtype) ** t.astype(p.dtype))
            scale = (v / (1 - jnp.asarray(b2, p.dtype) ** h.astype(p.dtype))) ** (hessian_power / 2)
            step = -learning_rate * (mean / (scale + eps) + weight_decay * p)
            return jnp.where(finite & (h > 0), step, 0)  # before the first Hessian eps alone would divide

        def kept(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        after = AdaHessianState(
            state.step + 1, h, kept(m, state.m), kept(v, state.v), state.skipped + (~finite).astype(jnp.int32)
        )
        return jax.tree.map(move, params, m, v), after

    return optax.GradientTransformationExtraArgs(init, update)


def average(diagonal: Array, rule: Averaging) -> Array:
    """Spatial averaging of ``|H z|``, the rules of the torch twin; the result has the same shape."""
    over = plan("adahessian", rule, diagonal.shape)
    if isinstance(over, int):
        blocks = diagonal.reshape(-1, over)
        return jnp.broadcast_to(blocks.mean(1, keepdims=True), blocks.shape).reshape(diagonal.shape)
    return jnp.broadcast_to(diagonal.mean(over, keepdims=True), diagonal.shape) if over else diagonal
