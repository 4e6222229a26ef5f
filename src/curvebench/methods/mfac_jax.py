"""M-FAC as an optax transformation; the update is that of :mod:`curvebench.methods.mfac_torch`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from curvebench.kernels.mfac_jax import FORMULAS, SlidingWindow, direction, push, sliding_window
from curvebench.methods.in_place_jax import floating
from curvebench.methods.validation import check, whole
from curvebench.spec import Query


class MFACState(NamedTuple):
    """What is kept between steps.

    Args:
        ring: the window of gradients.
        velocity: average of preconditioned gradients, ``[d]``; an empty tuple without momentum.
        skipped: steps that were not taken because the gradient was not finite, ``[]``.
    """

    ring: SlidingWindow
    velocity: Any
    skipped: Array


def mfac(
    learning_rate: float = 1e-3,
    *,
    window: int = 1024,
    damping: float = 1e-5,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    formula: str = "in-span",
) -> optax.GradientTransformationExtraArgs:
    """Matrix-free approximations of the inverse empirical Fisher matrix, over a sliding window of gradients.

    ``update(None, state, params, oracle=...)`` asks the oracle for the gradient. All parameters are one vector of
    length d; ``G [window, d]`` is kept in their dtype, float32 with half-precision parameters. In a jitted step that
    donates the state the window is overwritten row by row. A step whose gradient is not finite changes nothing and is
    counted in ``skipped``.

    Args:
        learning_rate: step size, >= 0; 0 fills the window and moves nothing.
        window: gradients that are kept, ``m`` >= 1; also the divisor while fewer have been seen.
        damping: > 0.
        momentum: of the average of preconditioned gradients, which starts at zero and is not corrected; in [0, 1).
        weight_decay: added to the gradient times the parameter before it enters the window, >= 0.
        formula: ``'in-span'``; ``'official'`` is the authors' recursion, which loses digits in float32.

    Raises:
        HyperparameterError: a value outside its range.

    Differs from the torch twin: no ``sparse`` and no ``maximize``; parameter groups are ``optax.partition``.
    """
    for name, value, allowed in (
        ("learning_rate", learning_rate, "[0, inf)"), ("damping", damping, "(0, inf)"),
        ("momentum", momentum, "[0, 1)"), ("weight_decay", weight_decay, "[0, inf)"), ("formula", formula, FORMULAS),
    ):  # fmt: skip
        check("mfac", name, value, allowed)
    m = whole("mfac", "window", window, "[1, inf)")

    def init(params: Any) -> MFACState:
        floating("mfac", params)
        leaves = jax.tree.leaves(params)
        d, dtype = sum(p.size for p in leaves), _dtype(leaves)
        velocity = jnp.zeros(d, dtype) if momentum else ()
        return MFACState(sliding_window(m, d, dtype), velocity, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: MFACState, params: Any = None, *, oracle: Any, **extra: Any) -> tuple[Any, Any]:
        del grads, extra
        gradient = oracle.at(params, needs=(Query.GRADIENT,)).gradient()
        dtype = _dtype(jax.tree.leaves(params))
        decayed = jax.tree.map(lambda g, p: g.astype(dtype) + weight_decay * p.astype(dtype), gradient, params)
        ring, finite = push(state.ring, ravel_pytree(decayed)[0])
        moved = direction(ring, damping, formula=formula)
        once = finite.astype(jnp.int32)
        oracle.tally(factors=once, inverses=once)
        velocity = state.velocity
        if momentum:
            moved = momentum * velocity + (1 - momentum) * moved
            velocity = jnp.where(finite, moved, velocity)
        updates = pieces(jnp.where(finite, -learning_rate * moved, 0), params)
        return updates, MFACState(ring, velocity, state.skipped + (~finite).astype(jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


def pieces(vector: Array, like: Any) -> Any:
    """One vector ``[d]`` cut into a tree."""
    leaves, shape = jax.tree.flatten(like)
    out, start = [], 0
    for p in leaves:
        out.append(lax.slice(vector, (start,), (start + p.size,)).reshape(p.shape).astype(p.dtype))
        start += p.size
    return jax.tree.unflatten(shape, out)


def _dtype(leaves: list[Any]) -> Any:
    return jnp.float64 if any(p.dtype == jnp.float64 for p in leaves) else jnp.float32
