"""MeZO as an optax transformation; the update is that of :mod:`curvebench.methods.mezo_torch`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from curvebench.kernels.replay_jax import refuse_half, two_point
from curvebench.methods.in_place_jax import InPlace, floating, in_place
from curvebench.methods.validation import check


def mezo(learning_rate: float, *, eps: float = 1e-3, weight_decay: float = 0.0, restore: str = "replay") -> InPlace:
    """Two-point zeroth-order SGD; ``update(None, state, params, oracle=...)`` asks the oracle for two losses.

    The noise is regenerated from its key wherever it is used, part by part. ``params, state = tx.step(params, state,
    oracle)`` in a jitted function that donates the parameters moves them in place; ``update`` holds a second set.

    Args:
        learning_rate: step size, >= 0.
        eps: half the distance between the two evaluations, > 0.
        weight_decay: decay, multiplied by the step size, >= 0.
        restore: of ``step``. ``'replay'``: walk from end to end and back, fused with the update; no memory, drift of
            rounding size, refused in half precision. ``'copy'``: both ends from the clean parameters, bit-exact.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
    """
    check("mezo", "learning_rate", learning_rate, "[0, inf)")
    check("mezo", "eps", eps, "(0, inf)")
    check("mezo", "weight_decay", weight_decay, "[0, inf)")
    check("mezo", "restore", restore, ("replay", "copy"))

    def init(params: Any) -> optax.EmptyState:
        floating("mezo", params)
        if restore == "replay":
            refuse_half("mezo", params)
        return optax.EmptyState()

    def measure(params: Any, oracle: Any, *, copy: bool) -> Any:
        def add(params: Any, scale: Any) -> Any:
            return oracle.walk("normal", "mezo", lambda z, p: (p + jnp.asarray(scale, p.dtype) * z,), params)[0]

        return two_point(oracle.loss, add, params, eps, copy=copy)

    def update(grads: Any, state: Any, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        slope = measure(params, oracle, copy=True).slope(eps)

        def displacement(z: Array, p: Array) -> tuple[Array]:
            return (-learning_rate * (slope.astype(p.dtype) * z + weight_decay * p),)

        return oracle.walk("normal", "mezo", displacement, params)[0], state

    def step(params: Any, state: Any, oracle: Any) -> tuple[Any, Any]:
        seen = measure(params, oracle, copy=restore == "copy")
        keep, slope = 1 - learning_rate * weight_decay, seen.slope(eps)

        def move(z: Array, p: Array) -> tuple[Array]:
            return (keep * p + (keep * seen.rest - learning_rate * slope).astype(p.dtype) * z,)

        return oracle.walk("normal", "mezo", move, seen.params)[0], state

    return in_place(init, update, step)
