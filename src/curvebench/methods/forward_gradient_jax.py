"""Forward gradients as an optax transformation; the update is that of ``forward_gradient_torch``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from curvebench.kernels.descent_jax import momentum as heavy_ball
from curvebench.methods.in_place_jax import floating
from curvebench.methods.validation import check, whole
from curvebench.spec import Query


class ForwardGradientState(NamedTuple):
    """The sum of past estimates, a tree like the parameters; an empty tuple without momentum."""

    momentum: Any


def forward_gradient(
    learning_rate: float, *, queries: int = 1, momentum: float = 0.0, weight_decay: float = 0.0
) -> optax.GradientTransformationExtraArgs:
    """SGD on ``(grad f . v) v``; ``update(None, state, params, oracle=...)`` asks for directional derivatives.

    Args:
        learning_rate: step size, >= 0; the largest safe one is about ``q/(d+q+1)`` of SGD's.
        queries: directions per step, q >= 1.
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("momentum", momentum, "[0, 1)"),
        ("weight_decay", weight_decay, "[0, inf)"),
    ):  # fmt: skip
        check("forward_gradient", name, value, allowed)
    q = whole("forward_gradient", "queries", queries, "[1, inf)")

    def init(params: Any) -> ForwardGradientState:
        floating("forward_gradient", params)
        return ForwardGradientState(jax.tree.map(jnp.zeros_like, params) if momentum else ())

    def update(grads: Any, state: Any, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra

        def one(i: Array, total: Any) -> Any:
            v = oracle.probes("normal", "directions", params, i)
            slope = oracle.at(params, needs=(Query.JVP,)).jvp(v) / q
            return jax.tree.map(lambda t, v: t + slope.astype(t.dtype) * v, total, v)

        gradient = oracle.fori_loop(0, q, one, jax.tree.map(jnp.zeros_like, params))
        updates, kept = heavy_ball(params, gradient, state.momentum, lr=learning_rate, momentum=momentum,
                                   weight_decay=weight_decay)  # fmt: skip
        return updates, ForwardGradientState(kept)

    return optax.GradientTransformationExtraArgs(init, update)
