"""Zeroth-order SGD as an optax transformation; the update is that of ``zo_sgd_torch``."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from curvebench.kernels.descent_jax import momentum as heavy_ball
from curvebench.kernels.zeroth_jax import LAWS, random_gradient
from curvebench.methods.in_place_jax import floating
from curvebench.methods.validation import check, whole


class ZOSGDState(NamedTuple):
    """The sum of past estimates, a tree like the parameters; an empty tuple without momentum."""

    momentum: Any


def zo_sgd(
    learning_rate: float,
    *,
    mu: float = 1e-3,
    queries: int = 8,
    central: bool = False,
    law: str = "gaussian",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Zeroth-order SGD; ``update(None, state, params, oracle=...)`` asks the oracle for losses alone.

    Args:
        learning_rate: step size, >= 0.
        mu: smoothing radius, > 0.
        queries: directions per step, q >= 1.
        central: two-sided differences: 2q losses a step instead of q + 1.
        law: ``'gaussian'``, ``'sphere'`` (unit, times d) or ``'tensor-sphere'`` (each array unit, times its size).
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("mu", mu, "(0, inf)"), ("law", law, LAWS),
        ("weight_decay", weight_decay, "[0, inf)"), ("momentum", momentum, "[0, 1)"),
    ):  # fmt: skip
        check("zo_sgd", name, value, allowed)
    q = whole("zo_sgd", "queries", queries, "[1, inf)")

    def init(params: Any) -> ZOSGDState:
        floating("zo_sgd", params)
        return ZOSGDState(jax.tree.map(jnp.zeros_like, params) if momentum else ())

    def update(grads: Any, state: Any, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        draw = partial(oracle.probes, "normal", "directions", params)
        estimate = random_gradient(oracle.loss, params, draw, mu=mu, queries=q, central=central, law=law,
                                   loop=oracle.fori_loop)  # fmt: skip
        updates, kept = heavy_ball(params, estimate.gradient, state.momentum, lr=learning_rate, momentum=momentum,
                                   weight_decay=weight_decay)  # fmt: skip
        return updates, ZOSGDState(kept)

    return optax.GradientTransformationExtraArgs(init, update)
