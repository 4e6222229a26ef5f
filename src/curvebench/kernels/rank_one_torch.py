"""Solving with a damped Kronecker product of two vectors, in torch."""

from __future__ import annotations

from torch import Tensor


def eva_direction(W: Tensor, a: Tensor, g: Tensor, damping: float) -> Tensor:
    """``(gg' kron aa' + damping I)^-1`` on ``W [o, i]``, ``a [i]``, ``g [o]``, by Sherman and Morrison.

    ``(W - (g'Wa) / (damping + |a|^2 |g|^2) g a') / damping``: two passes over W.
    """
    weight = (g @ (W @ a)) / (damping + (a @ a) * (g @ g))
    return (W - (weight * g)[:, None] * a) / damping
