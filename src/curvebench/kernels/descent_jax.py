"""Update rules for a gradient that was estimated, over trees; each returns the displacement and what it keeps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def momentum(
    params: Any, gradient: Any, buffer: Any, *, lr: Any, momentum: float, weight_decay: float
) -> tuple[Any, Any]:
    """``b <- momentum b + g + weight_decay theta``;  ``-lr b``: SGD's rule.

    Args:
        params: ``theta``.
        gradient: ``g``.
        buffer: ``b``, zeros at first; an empty tuple, and kept so, without momentum.
        lr: step size.
        momentum: 0 for none.
        weight_decay: coupled decay.
    """
    b = jax.tree.map(lambda g, p: g + weight_decay * p, gradient, params)
    if momentum:
        b = buffer = jax.tree.map(lambda old, g: momentum * old + g, buffer, b)
    return jax.tree.map(lambda b: -lr * b, b), buffer


def adam(
    params: Any, gradient: Any, m: Any, v: Any, *, t: Array, lr: Any, b1: float, b2: float, eps: float,
    weight_decay: float,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """``m <- b1 m + (1-b1) g``, ``v <- b2 v + (1-b2) g^2``, ``-lr (mhat / (sqrt(vhat) + eps) + weight_decay theta)``.

    Args:
        params: ``theta``.
        gradient: ``g``.
        m: zeros at first.
        v: zeros at first.
        t: number of this step, from 1, ``[]``.
        lr: step size.
        b1: decay of ``m``.
        b2: decay of ``v``.
        eps: added outside the root.
        weight_decay: multiplied by lr.
    """
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, gradient)

    def move(p: Array, m: Array, v: Array) -> Array:
        steps = t.astype(p.dtype)
        mean = m / (1 - jnp.asarray(b1, p.dtype) ** steps)
        scale = jnp.sqrt(v / (1 - jnp.asarray(b2, p.dtype) ** steps))
        moved: Array = -lr * (mean / (scale + eps) + weight_decay * p)
        return moved

    return jax.tree.map(move, params, m, v), m, v
