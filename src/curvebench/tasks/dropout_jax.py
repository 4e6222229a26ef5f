"""Dropout in jax, bit for bit that of :mod:`curvebench.tasks.dropout_torch`; see :mod:`curvebench.tasks.dropout`."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from curvebench.tasks.dropout import FIRST, GOLDEN, MURMUR, SECOND, threshold


def dropout(inputs: Array, keys: Array, rate: float, site: int, strides: tuple[int, ...]) -> Array:
    """``inputs [batch, ...]`` with the step's mask, over ``1 - rate``.

    Args:
        inputs: activations.
        keys: int32 ``[batch]``.
        rate: share of elements that drop.
        site: number of the site.
        strides: of an element's number over the axes behind the batch.
    """
    shape = inputs.shape[1:]
    x = jnp.full(shape, site * GOLDEN & 0xFFFFFFFF, jnp.uint32)
    for axis, stride in enumerate(strides):
        x = x + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(MURMUR[0])
    x = (x ^ (x >> jnp.uint32(13))) * jnp.uint32(MURMUR[1])
    x = x ^ (x >> jnp.uint32(16))
    spread = lax.bitcast_convert_type(keys, jnp.uint32).reshape(-1, *(1 for _ in shape))
    x = (x[None] ^ spread) * jnp.uint32(FIRST)
    x = (x ^ (x >> jnp.uint32(15))) * jnp.uint32(SECOND)
    kept = lax.bitcast_convert_type(x, jnp.int32) >= jnp.int32(threshold(rate))
    out: Array = inputs * (kept.astype(inputs.dtype) / (1 - rate))
    return out
