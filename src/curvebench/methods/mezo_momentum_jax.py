"""MeZO with momentum as an optax transformation; the update is that of ``mezo_momentum_torch``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from curvebench.kernels.replay_jax import refuse_half, two_point
from curvebench.methods.in_place_jax import InPlace, floating, in_place
from curvebench.methods.validation import check


class MeZOMomentumState(NamedTuple):
    """The sum of past estimates, a tree like the parameters."""

    momentum: Any


def mezo_momentum(
    learning_rate: float,
    *,
    eps: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    restore: str = "replay",
) -> InPlace:
    """Heavy-ball SGD on the two-point estimate; ``update`` and ``step`` as those of MeZO.

    Args:
        learning_rate: step size, >= 0.
        eps: half the distance between the two evaluations, > 0.
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.
        restore: of ``step``: ``'replay'``, refused in half precision, or ``'copy'``, bit-exact.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("eps", eps, "(0, inf)"), ("momentum", momentum, "[0, 1)"),
        ("weight_decay", weight_decay, "[0, inf)"), ("restore", restore, ("replay", "copy")),
    ):  # fmt: skip
        check("mezo_momentum", name, value, allowed)

    def init(params: Any) -> MeZOMomentumState:
        floating("mezo_momentum", params)
        if restore == "replay":
            refuse_half("mezo_momentum", params)
        return MeZOMomentumState(jax.tree.map(jnp.zeros_like, params))

    def measure(params: Any, oracle: Any, *, copy: bool) -> Any:
        def add(params: Any, scale: Any) -> Any:
            return oracle.walk("normal", "mezo", lambda z, p: (p + jnp.asarray(scale, p.dtype) * z,), params)[0]

        return two_point(oracle.loss, add, params, eps, copy=copy)

    def rule(seen: Any) -> Any:
        slope = seen.slope(eps)

        def move(z: Array, p: Array, b: Array) -> tuple[Array, Array]:
            p = p + seen.rest.astype(p.dtype) * z
            b = momentum * b + slope.astype(p.dtype) * z + weight_decay * p
            return p - learning_rate * b, b

        return move

    def update(
        grads: Any, state: MeZOMomentumState, params: Any = None, *, oracle: Any, **extra: Any
    ) -> tuple[Any, Any]:
        del grads, extra
        move = rule(measure(params, oracle, copy=True))
        (b,) = oracle.walk("normal", "mezo", lambda z, b, p: move(z, p, b)[1:], state.momentum, params, reads=1)
        return jax.tree.map(lambda b: -learning_rate * b, b), MeZOMomentumState(b)

    def step(params: Any, state: MeZOMomentumState, oracle: Any) -> tuple[Any, Any]:
        seen = measure(params, oracle, copy=restore == "copy")
        params, b = oracle.walk("normal", "mezo", rule(seen), seen.params, state.momentum)
        return params, MeZOMomentumState(b)

    return in_place(init, update, step)
