"""MKOR's pieces in jax: the functions of :mod:`curvebench.kernels.mkor_torch`, of the same names and shapes.

Inverse factors ``J [n, n]``, vectors ``v [n]``, a layer's gradient ``dW [o, n]``, ``db [o]``. A functional update is in
place where XLA owns the buffer: in a jitted step whose state is donated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from curvebench.kernels.geometry import Geometry
from curvebench.kernels.kronecker_jax import batched, padded, windows

GAMMA = 0.95
"""Weight of the old inverse: a literal in the released code, whose ``stat_decay`` is never used."""
ZETA = 0.9
LIMIT = 2.0
"""The stabiliser acts when the largest absolute element exceeds this (the released code's epsilon)."""
RULES = ("code", "ema", "paper")
NORMS = ("sum", "joint")


def working(dtype: Any) -> Any:
    """The dtype to compute in: half-precision factors are kept in half and updated in float32."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def mean_input(x: Array, geo: Geometry | None, bias: bool, clip: float, share: float) -> Array:
    """``share`` times the mean over a layer's rows of ``[x, 1]``, each element first clamped to ``+-clip``; ``[i]``.

    A row is a sample and position of a Linear; for a Conv2d it is a sample's patch, averaged over output positions.
    """
    if geo is None:
        rows = x.reshape(-1, x.shape[-1])
    else:
        means = [seen.mean((2, 3)) for seen in windows(padded(batched(x, geo), geo), geo)]
        rows = jnp.stack(means, 2).reshape(len(means[0]), -1)
    mean = jnp.clip(rows * share, -clip, clip).mean(0)
    return jnp.concatenate([mean, jnp.full((1,), min(share, clip), mean.dtype)]) if bias else mean


def mean_gradient(g: Array, geo: Geometry | None, clip: float, scale: float) -> Array:
    """Mean over a layer's rows of ``scale`` times the output gradient, each element first clamped; ``[o]``."""
    rows = g.reshape(-1, g.shape[-1]) if geo is None else batched(g, geo).mean((2, 3))
    return jnp.clip(rows * scale, -clip, clip).mean(0)


class Step(NamedTuple):
    """One update of an inverse factor: ``J <- scale J + shift I + weight u u'``; ``u [n]``, the others ``[]``."""

    scale: Array | float
    shift: Array | float
    u: Array
    weight: Array


def rank_one_step(J: Array, v: Array, rule: str, gamma: float = GAMMA, zeta: Array | float = 1.0) -> Step:
    """What one vector does to the inverse factor ``zeta J + (1-zeta) I``; the rules are those of torch."""
    dtype = working(J.dtype)
    v = v.astype(dtype)
    # v = size * w with |w| <= 1: no product overflows, however long v is.
    size = jnp.maximum(jnp.abs(v).max(), 1)
    w = v / size
    u = zeta * (J.astype(dtype) @ w) + (1 - zeta) * w
    small = 1 / (size * size)
    if rule == "code":
        u = gamma * u + (1 - gamma) * w
        return Step(gamma * zeta, gamma * (1 - zeta) + 1 - gamma, u, -1 / (small + w @ u))
    if rule == "ema":
        share = (1 - gamma) / gamma
        return Step(zeta / gamma, (1 - zeta) / gamma, u, -share / gamma / (small + share * (w @ u)))
    weight = (1 - gamma) / gamma**2 / (small + gamma * (1 - gamma) * (w @ u))
    return Step(gamma * zeta, gamma * (1 - zeta), u, weight)


def diagonal_after(J: Array, step: Step) -> Array:
    """The diagonal ``[n]`` that ``J`` will have. ``J`` is positive definite: no element is larger than its largest."""
    after: Array = step.weight * jnp.square(step.u) + (step.scale * jnp.diagonal(J).astype(step.u.dtype) + step.shift)
    return after


def update_(J: Array, step: Step) -> Array:
    """The factor after the step, in one pass over ``J`` and in its dtype."""
    outer = (step.weight * step.u)[:, None] * step.u[None, :]
    after = step.scale * J.astype(step.u.dtype) + outer + step.shift * jnp.eye(len(J), dtype=step.u.dtype)
    return after.astype(J.dtype)


def rank_one(J: Array, v: Array, rule: str, gamma: float = GAMMA) -> Array:
    """The inverse factor after one vector, in the dtype of ``J``; rules as :func:`rank_one_step`."""
    return update_(J, rank_one_step(J, v, rule, gamma))


def blended(J: Array, zeta: float = ZETA, limit: float = LIMIT) -> Array:
    """The paper's stabiliser: ``zeta J + (1-zeta) I`` where the largest absolute element exceeds ``limit``."""
    return jnp.where(largest(J) > limit, zeta * J + (1 - zeta) * jnp.eye(len(J), dtype=J.dtype), J)


def largest(J: Array) -> Array:
    """Largest absolute element ``[]`` of a positive definite ``J``, which lies on its diagonal; NaN if one is there."""
    return jnp.abs(jnp.diagonal(J).astype(working(J.dtype))).max()


def preconditioned(JG: Array, JA: Array, weight: Array, bias: Array | None) -> tuple[Array, Array | None]:
    """``JG [dW, db] JA`` without ever building ``[dW, db]``; ``weight [o, n]``, ``bias [o]``."""
    n = weight.shape[1]
    left = JG @ weight
    out = left @ JA[:n, :n]
    if bias is None:
        return out, None
    column = JG @ bias
    return out + column[:, None] * JA[n, :n], left @ JA[:n, n] + column * JA[n, n]


def length(weight: Array, bias: Array | None, norm: str = "sum") -> Array:
    """``|dW| + |db|`` (``sum``, as the released code) or ``|[dW, db]|`` (``joint``, as the paper); ``[]``."""
    size: Array = jnp.linalg.norm(weight.reshape(-1))
    if bias is None:
        return size
    other = jnp.linalg.norm(bias)
    return size + other if norm == "sum" else jnp.hypot(size, other)
