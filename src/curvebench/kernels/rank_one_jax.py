"""Solving with a damped Kronecker product of two vectors, in jax."""

from __future__ import annotations

from jax import Array


def eva_direction(W: Array, a: Array, g: Array, damping: float) -> Array:
    """``(gg' kron aa' + damping I)^-1`` on ``W [o, i]``, ``a [i]``, ``g [o]``, by Sherman and Morrison."""
    weight = (g @ (W @ a)) / (damping + (a @ a) * (g @ g))
    return (W - (weight * g)[:, None] * a) / damping
