"""Gradient estimators from losses alone, as pure functions of a tree of parameters.

``loss(params)`` evaluates the objective; ``d`` parameters in arrays of any shape; ``mu`` the smoothing radius; ``q``
directions. Directions and coordinates follow one another in a loop of the compiled program, one copy of the loss each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from curvebench.kernels.replay_jax import after

Loss = Callable[[Any], Array]
Draw = Callable[[Any], Any]
"""``i -> `` a tree of standard normal draws shaped like the parameters, another one for every ``i``."""
Loop = Callable[[Any, Any, Callable[[Array, Any], Any], Any], Any]
"""``lax.fori_loop``, or an oracle's, which counts what is asked inside."""

LAWS = ("gaussian", "sphere", "tensor-sphere")
"""Where directions come from: ``N(0, I)``, the unit sphere in R^d, or a unit sphere for every array."""


class Estimate(NamedTuple):
    """A gradient estimate and the loss that came with it.

    Args:
        gradient: a tree like the parameters.
        loss: ``[]``: at the clean parameters (forward), or the mean over all that were evaluated (central).
    """

    gradient: Any
    loss: Array


def random_gradient(
    loss: Loss,
    params: Any,
    draw: Draw,
    *,
    mu: float,
    queries: int = 1,
    central: bool = False,
    law: str = "gaussian",
    loop: Loop = lax.fori_loop,
) -> Estimate:
    """RGE (SPSA): ``g = c/q sum_i s_i u_i`` with the slope ``s_i`` of the loss along ``u_i``.

    Forward ``s_i = (f(theta + mu u_i) - f(theta)) / mu``: q + 1 losses. Central
    ``s_i = (f(theta + mu u_i) - f(theta - mu u_i)) / (2 mu)``: 2q losses. ``c`` makes the estimate unbiased for the
    smoothed loss: 1 (Gaussian), d (sphere), the array's size (tensor-sphere).

    Args:
        loss: the objective.
        params: where.
        draw: source of Gaussian directions.
        mu: smoothing radius, > 0.
        queries: q, the number of directions, >= 1.
        central: two-sided differences.
        law: one of :data:`LAWS`.
        loop: over the directions.
    """
    weights = factors(params, law)
    base = None if central else loss(params)

    def moved(u: Any, by: Any) -> Any:
        return jax.tree.map(lambda p, v: p + by * v, params, u)

    def one(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        total, seen = carry
        u = direction(draw(i), law)
        above = loss(moved(u, mu))
        if base is None:
            below = loss(moved(u, -mu))
            slope = (above - below) / (2 * mu)
            seen = seen + ((above + below) / (2 * queries)).astype(seen.dtype)
        else:
            slope = (above - base) / mu
        return jax.tree.map(lambda t, v: t + (slope / queries).astype(t.dtype) * v, total, u), seen

    zero = jnp.zeros((), jax.tree.leaves(params)[0].dtype)
    total, seen = loop(0, queries, one, (jax.tree.map(jnp.zeros_like, params), zero))
    return Estimate(jax.tree.map(lambda g, w: w * g, total, weights), seen if base is None else base)


def direction(normal: Any, law: str) -> Any:
    """A direction of a law from standard normal draws."""
    if law == "gaussian":
        return normal
    norms = jax.tree.map(lambda z: jnp.sqrt(jnp.vdot(z, z)), normal)
    if law == "sphere":
        whole = jnp.sqrt(sum(n * n for n in jax.tree.leaves(norms)))
        norms = jax.tree.map(lambda _: whole, norms)
    return jax.tree.map(lambda z, n: z / n, normal, norms)


def factors(params: Any, law: str) -> Any:
    """What makes the estimate along directions of a law unbiased: ``1 / E[u_j^2]`` of each array.

    Raises:
        ValueError: the law is unknown.
    """
    if law not in LAWS:
        raise ValueError(f"law = {law!r}: must be one of {', '.join(map(repr, LAWS))}")
    d = sum(p.size for p in jax.tree.leaves(params))
    return jax.tree.map(lambda p: {"gaussian": 1.0, "sphere": float(d), "tensor-sphere": float(p.size)}[law], params)


def coordinate_gradient(
    loss: Loss,
    params: Any,
    *,
    mu: float,
    central: bool = False,
    masks: Sequence[Any] | None = None,
    loop: Loop = lax.fori_loop,
) -> Estimate:
    """CGE: ``g_i = (f(theta + mu e_i) - f(theta)) / mu`` for every active coordinate i, 0 elsewhere.

    |S| + 1 losses for |S| active coordinates; central ``(f(theta + mu e_i) - f(theta - mu e_i)) / (2 mu)``: 2|S|.
    One coordinate of one array is changed and put back at a time. What the loss computes without that array is, by
    XLA, computed once for all of its coordinates.

    Args:
        loss: the objective.
        params: where.
        mu: smoothing radius, > 0.
        central: two-sided differences, error O(mu^2) instead of O(mu).
        masks: for each leaf of the tree True where a coordinate is active, or None for all; NumPy arrays; or
            :class:`Active`.
        loop: over the coordinates of an array.
    """
    leaves, shape = jax.tree.flatten(params)
    base = None if central else loss(params)
    total = jnp.zeros((), leaves[0].dtype)
    gradient, count = [], jnp.zeros((), jnp.int32)
    for place, (leaf, mask) in enumerate(zip(leaves, masks or [None] * len(leaves), strict=True)):
        active = mask if isinstance(mask, Active) else Active.of(mask, leaf.size)
        if isinstance(active.first, int) and active.first >= len(active.order):
            gradient.append(jnp.zeros_like(leaf))
            continue

        def at(flat: Array, place: int = place) -> Array:
            return loss(jax.tree.unflatten(shape, [*leaves[:place], flat.reshape(leaves[place].shape),
                                                   *leaves[place + 1 :]]))  # fmt: skip

        def one(j: Array, carry: tuple[Array, Array, Array], active: Active = active, at: Any = at) -> Any:
            flat, g, total = carry
            i = active.order[j]
            clean = lax.dynamic_index_in_dim(flat, i, keepdims=False)
            flat = lax.dynamic_update_index_in_dim(flat, clean + mu, i, 0)
            last = above = at(flat)
            if base is None:
                flat = lax.dynamic_update_index_in_dim(flat, after(above, clean) - mu, i, 0)
                last = below = at(flat)
                slope, total = (above - below) / (2 * mu), total + (above + below).astype(total.dtype)
            else:
                slope = (above - base) / mu
            flat = lax.dynamic_update_index_in_dim(flat, after(last, clean), i, 0)
            return flat, lax.dynamic_update_index_in_dim(g, slope.astype(g.dtype), i, 0), total

        start = (leaf.reshape(-1), jnp.zeros(leaf.size, leaf.dtype), total)
        _, g, total = loop(active.first, len(active.order), one, start)
        gradient.append(g.reshape(leaf.shape))
        count = count + len(active.order) - active.first
    found = jax.tree.unflatten(shape, gradient)
    return Estimate(found, total / jnp.maximum(2 * count, 1).astype(total.dtype) if base is None else base)


class Active(NamedTuple):
    """The active coordinates of an array.

    Args:
        order: flat indices, int32 ``[n]``.
        first: those from this position of ``order`` on are active; may be traced.
    """

    order: Any
    first: Any

    @classmethod
    def of(cls, mask: Any, size: int) -> Active:
        """All coordinates, or those where a NumPy mask is True."""
        if mask is None:
            return cls(jnp.arange(size, dtype=jnp.int32), 0)
        return cls(jnp.asarray(np.flatnonzero(np.asarray(mask)), jnp.int32), 0)
