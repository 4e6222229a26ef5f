"""Zeroth-order Adam as an optax transformation; the update is that of ``zo_adam_torch``."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from curvebench.kernels.descent_jax import adam
from curvebench.kernels.zeroth_jax import LAWS, random_gradient
from curvebench.methods.in_place_jax import floating
from curvebench.methods.validation import check, whole


class ZOAdamState(NamedTuple):
    """Steps so far ``[]``, the two moments (trees like the parameters)."""

    step: Array
    m: Any
    v: Any


def zo_adam(
    learning_rate: float,
    *,
    mu: float = 1e-3,
    queries: int = 8,
    central: bool = False,
    law: str = "gaussian",
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Zeroth-order Adam; ``update(None, state, params, oracle=...)`` asks the oracle for losses alone.

    Args:
        learning_rate: step size, >= 0.
        mu: smoothing radius, > 0.
        queries: directions per step, q >= 1.
        central: two-sided differences: 2q losses a step instead of q + 1.
        law: ``'gaussian'``, ``'sphere'`` (unit, times d) or ``'tensor-sphere'`` (each array unit, times its size).
        b1: decay rate of the first moment, in [0, 1).
        b2: decay rate of the second moment, in [0, 1).
        eps: added outside the root, > 0.
        weight_decay: decoupled decay, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("mu", mu, "(0, inf)"), ("law", law, LAWS),
        ("weight_decay", weight_decay, "[0, inf)"), ("b1", b1, "[0, 1)"), ("b2", b2, "[0, 1)"),
        ("eps", eps, "(0, inf)"),
    ):  # fmt: skip
        check("zo_adam", name, value, allowed)
    q = whole("zo_adam", "queries", queries, "[1, inf)")

    def init(params: Any) -> ZOAdamState:
        floating("zo_adam", params)
        for p in jax.tree.leaves(params):
            if p.dtype in (jnp.float16, jnp.bfloat16):
                raise TypeError(
                    f"zo_adam: a parameter has dtype {p.dtype}: must be float32 or float64 (b2 = 0.999 rounds to 1 "
                    "in bfloat16, eps = 1e-8 to 0 in float16)"
                )
        zeros = jax.tree.map(jnp.zeros_like, params)
        return ZOAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(grads: Any, state: Any, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        draw = partial(oracle.probes, "normal", "directions", params)
        estimate = random_gradient(oracle.loss, params, draw, mu=mu, queries=q, central=central, law=law,
                                   loop=oracle.fori_loop)  # fmt: skip
        t = state.step + 1
        updates, m, v = adam(params, estimate.gradient, state.m, state.v, t=t, lr=learning_rate, b1=b1, b2=b2, eps=eps,
                             weight_decay=weight_decay)  # fmt: skip
        return updates, ZOAdamState(t, m, v)

    return optax.GradientTransformationExtraArgs(init, update)
