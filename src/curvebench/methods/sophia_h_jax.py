"""Sophia-H as an optax transformation; the update is that of :mod:`curvebench.methods.sophia_h_torch`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from curvebench.methods.validation import check
from curvebench.spec import Query


class SophiaHState(NamedTuple):
    """Steps ``[]``, momentum, averaged diagonal of the Hessian (trees like the parameters)."""

    step: Array
    m: Any
    h: Any


def sophia_h(
    learning_rate: float,
    *,
    b1: float = 0.96,
    b2: float = 0.99,
    gamma: float = 1e-2,
    eps: float = 1e-12,
    weight_decay: float = 0.0,
    hessian_every: int = 10,
) -> optax.GradientTransformationExtraArgs:
    """Sophia-H; ``update(grads, state, params, oracle=...)`` asks the oracle for the gradient and ``H z``.

    Args:
        learning_rate: step size, >= 0.
        b1: decay rate of the momentum, in [0, 1).
        b2: decay rate of the curvature, in [0, 1).
        gamma: scales the curvature, > 0.
        eps: least denominator, > 0.
        weight_decay: decoupled decay, multiplied by the step size, >= 0.
        hessian_every: a new Hessian every so many steps, from the first; the others run one gradient only.

    Raises:
        HyperparameterError: a value outside its range.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("b1", b1, "[0, 1)"), ("b2", b2, "[0, 1)"),
        ("gamma", gamma, "(0, inf)"), ("eps", eps, "(0, inf)"), ("weight_decay", weight_decay, "[0, inf)"),
        ("hessian_every", hessian_every, "[1, inf)"),
    ):  # fmt: skip
        check("sophia_h", name, value, allowed)

    def init(params: Any) -> SophiaHState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SophiaHState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(grads: Any, state: SophiaHState, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra  # the gradient comes from the point, which shares its forward with H z

        def second(_: None) -> tuple[Any, Any]:
            point = oracle.at(params, needs=(Query.GRADIENT, Query.HVP))
            gradient, probes = point.gradient(), oracle.probes("normal", "hutchinson", params)
            return gradient, jax.tree.map(
                lambda h, z, hz: b2 * h + (1 - b2) * z * hz, state.h, probes, point.hvp(probes)
            )

        def first(_: None) -> tuple[Any, Any]:
            return oracle.at(params, needs=(Query.GRADIENT,)).gradient(), state.h

        new = state.step % hessian_every == 0
        g, h = second(None) if hessian_every == 1 else oracle.cond(new, second, first, None)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.m, g)

        def move(p: Array, m: Array, h: Array) -> Array:
            return -learning_rate * (jnp.clip(m / jnp.maximum(gamma * h, eps), -1, 1) + weight_decay * p)

        return jax.tree.map(move, params, m, h), SophiaHState(state.step + 1, m, h)

    return optax.GradientTransformationExtraArgs(init, update)
