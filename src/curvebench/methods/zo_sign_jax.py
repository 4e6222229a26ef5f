"""Zeroth-order signSGD as an optax transformation; the update is that of ``zo_sign_torch``."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from curvebench.kernels.zeroth_jax import LAWS, random_gradient
from curvebench.methods.in_place_jax import floating
from curvebench.methods.validation import check, whole


def zo_sign(
    learning_rate: float,
    *,
    mu: float = 1e-3,
    queries: int = 8,
    central: bool = False,
    law: str = "gaussian",
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Zeroth-order signSGD; ``update(None, state, params, oracle=...)`` asks the oracle for losses alone.

    Args:
        learning_rate: step size, >= 0.
        mu: smoothing radius, > 0.
        queries: directions per step, q >= 1.
        central: two-sided differences: 2q losses a step instead of q + 1.
        law: ``'gaussian'``, ``'sphere'`` (unit, times d) or ``'tensor-sphere'`` (each array unit, times its size).
        weight_decay: decoupled decay, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("mu", mu, "(0, inf)"), ("law", law, LAWS),
        ("weight_decay", weight_decay, "[0, inf)"),
    ):  # fmt: skip
        check("zo_sign", name, value, allowed)
    q = whole("zo_sign", "queries", queries, "[1, inf)")

    def init(params: Any) -> optax.EmptyState:
        floating("zo_sign", params)
        return optax.EmptyState()

    def update(grads: Any, state: Any, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        draw = partial(oracle.probes, "normal", "directions", params)
        estimate = random_gradient(oracle.loss, params, draw, mu=mu, queries=q, central=central, law=law,
                                   loop=oracle.fori_loop)  # fmt: skip
        updates = jax.tree.map(
            lambda p, g: -learning_rate * (jnp.sign(g) + weight_decay * p), params, estimate.gradient
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)
