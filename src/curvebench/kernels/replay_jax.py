"""Walks along a direction that is drawn again from its stream instead of being stored.

``add(params, step)`` moves every parameter by ``step`` units of the direction, the same one whenever it is called. In a
jitted step whose parameters are donated a walk overwrites them: no copy of them exists at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from curvebench.errors import HyperparameterError

Add = Callable[[Any, Any], Any]
"""``(params, step) -> params + step u``."""
Loss = Callable[[Any], Array]


class TwoPoint(NamedTuple):
    """The losses at both ends of a walk, and what remains of it.

    Args:
        above: ``f(theta + eps u)``, ``[]``.
        below: ``f(theta - eps u)``, ``[]``.
        params: where the walk stands.
        rest: the multiple of ``u``, ``[]``, to be added to be back at ``theta``; left to the caller, who can fuse it
            with the update, which saves one pass of drawing.
    """

    above: Array
    below: Array
    params: Any
    rest: Array

    def slope(self, eps: float) -> Array:
        """``(above - below) / (2 eps)``, ``[]``."""
        return (self.above - self.below) / (2 * eps)


def two_point(loss: Loss, add: Add, params: Any, eps: float, *, copy: bool, since: Array | None = None) -> TwoPoint:
    """Evaluate at ``theta + eps u`` and ``theta - eps u``.

    Args:
        loss: of a tree like the parameters.
        add: moves along the direction.
        params: ``theta``.
        eps: how far, > 0.
        copy: start both times from ``theta`` and end there, bit for bit, so that more sets of parameters are held;
            else walk from one end to the other, with drift of rounding size.
        since: a loss at ``theta``, after which the parameters may be overwritten.
    """
    above = loss(ahead := add(params, eps if since is None else after(since, eps)))
    if copy:
        return TwoPoint(above, loss(add(params, after(above, -eps))), params, jnp.zeros_like(above))
    below = loss(behind := add(ahead, after(above, -2 * eps)))
    return TwoPoint(above, below, behind, after(below, eps))


def after(known: Array, number: float | Array) -> Array:
    """``number`` as an array that cannot be had before ``known`` is.

    A walk by that number then comes after whatever read the parameters to compute ``known``, so that XLA may overwrite
    them; an ``optimization_barrier`` is gone by the time that XLA decides about copies.
    """
    never = jnp.isnan(known) & jnp.isinf(known)
    return jnp.where(never, jnp.asarray(2 * number, known.dtype), jnp.asarray(number, known.dtype))


def refuse_half(method: str, params: Any) -> None:
    """Refuse to walk by differences where that loses the weights.

    Raises:
        HyperparameterError: a parameter has half precision.
    """
    for p in jax.tree.leaves(params):
        if p.dtype in (jnp.float16, jnp.bfloat16):
            raise HyperparameterError(
                f"{method}: restore = 'replay' with {p.dtype} parameters: adding and subtracting noise does not "
                "restore half-precision weights; use restore='copy'"
            )
