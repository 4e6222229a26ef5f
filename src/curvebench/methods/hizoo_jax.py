"""HiZOO as an optax transformation; the update is that of :mod:`curvebench.methods.hizoo_torch`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from curvebench.kernels.replay_jax import refuse_half, two_point
from curvebench.methods.in_place_jax import InPlace, floating, in_place
from curvebench.methods.validation import check


class HiZOOState(NamedTuple):
    """The estimate of the Hessian's diagonal, 1 at first, a tree like the parameters."""

    h: Any


def hizoo(
    learning_rate: float,
    *,
    eps: float = 1e-3,
    alpha: float = 1e-8,
    weight_decay: float = 0.0,
    restore: str = "replay",
) -> InPlace:
    """MeZO scaled by an estimate of the Hessian's diagonal from a third loss; ``update`` and ``step`` as MeZO's.

    Args:
        learning_rate: step size, >= 0.
        eps: half the distance between the two outer evaluations, > 0.
        alpha: how fast ``h`` follows, in [0, 1]; 0 is MeZO.
        weight_decay: decay, multiplied by the step size, >= 0.
        restore: of ``step``: ``'replay'``, refused in half precision, or ``'copy'``, bit-exact.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("eps", eps, "(0, inf)"), ("alpha", alpha, "[0, 1]"),
        ("weight_decay", weight_decay, "[0, inf)"), ("restore", restore, ("replay", "copy")),
    ):  # fmt: skip
        check("hizoo", name, value, allowed)

    def init(params: Any) -> HiZOOState:
        floating("hizoo", params)
        if restore == "replay":
            refuse_half("hizoo", params)
        return HiZOOState(jax.tree.map(jnp.ones_like, params))

    def measure(params: Any, h: Any, oracle: Any, *, copy: bool) -> tuple[Any, Array]:
        def add(params: Any, scale: Any) -> Any:
            def along(z: Array, p: Array, h: Array) -> tuple[Array]:
                return (p + jnp.asarray(scale, p.dtype) * z / jnp.sqrt(h),)

            return oracle.walk("normal", "mezo", along, params, h, reads=1)[0]

        middle = oracle.loss(params)
        seen = two_point(oracle.loss, add, params, eps, copy=copy, since=middle)
        return seen, jnp.abs(seen.above + seen.below - 2 * middle) / (2 * eps**2)

    def rule(seen: Any, bend: Array) -> Any:
        slope = seen.slope(eps)

        def move(z: Array, p: Array, h: Array) -> tuple[Array, Array]:
            p = p + seen.rest.astype(p.dtype) * z / jnp.sqrt(h)
            h = h * (1 - alpha + alpha * bend.astype(p.dtype) * z * z)
            step = -learning_rate * (slope.astype(p.dtype) * z / jnp.sqrt(h) + weight_decay * p)
            return p + step, h

        return move

    def update(grads: Any, state: HiZOOState, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        move = rule(*measure(params, state.h, oracle, copy=True))
        moved, h = oracle.walk("normal", "mezo", move, params, state.h)
        return jax.tree.map(lambda new, p: new - p, moved, params), HiZOOState(h)

    def step(params: Any, state: HiZOOState, oracle: Any) -> tuple[Any, Any]:
        seen, bend = measure(params, state.h, oracle, copy=restore == "copy")
        params, h = oracle.walk("normal", "mezo", rule(seen, bend), seen.params, state.h)
        return params, HiZOOState(h)

    return in_place(init, update, step)
