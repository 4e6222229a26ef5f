"""Trace and diagonal of a symmetric matrix in jax, from products with random probes.

``H [d, d]`` is known by ``product: v [d] -> H v [d]``. Probes ``z [d]`` come from outside, independent, with mean 0
and ``E[z z'] = I``: Rademacher (+-1) or standard normal. Every estimate comes with its standard error. An array of
probes ``[n, d]`` is one loop of the compiled program, with one copy of the product; any other iterable is walked in
Python, so that probes need not all be in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax

Product = Callable[[Array], Array]
Probes: TypeAlias = Array | Iterable[Array]


class Estimate(NamedTuple):
    """A mean over independent draws.

    Args:
        value: the mean.
        standard_error: of the mean, of the same shape: ``s / sqrt(n)``; NaN for a single draw.
        draws: n.
    """

    value: Array | npt.NDArray[np.float64]
    standard_error: Array | npt.NDArray[np.float64]
    draws: int


def hutchinson_diagonal(product: Product, probes: Probes) -> Estimate:
    """``diag H`` as the mean of ``z * (H z)``, ``[d]``.

    Exact with one Rademacher probe where H is diagonal. Otherwise unbiased, with variance per probe
    ``sum_{j != i} H_ij^2`` (Rademacher) or ``sum_{j != i} H_ij^2 + 2 H_ii^2`` (normal).

    Args:
        product: ``v -> H v``.
        probes: one product each.

    Raises:
        ValueError: there is no probe.
    """
    return average(probes, lambda z: z * product(z))


def hutchinson_trace(product: Product, probes: Probes) -> Estimate:
    """``tr H`` as the mean of ``z' H z``, ``[]``.

    Unbiased, with variance per probe ``2 sum_{i != j} H_ij^2`` (Rademacher) or ``2 ||H||_F^2`` (normal).

    Args:
        product: ``v -> H v``.
        probes: one product each.

    Raises:
        ValueError: there is no probe.
    """
    return average(probes, lambda z: _dot(_wide(z), _wide(product(z))))


def hutchinson_block_traces(product: Product, probes: Probes, sizes: Sequence[int]) -> Estimate:
    """Traces of the diagonal blocks of H, ``[blocks]``: means of ``z_b' (H z)_b``; all blocks from the same products.

    Unbiased: what ``H`` does between blocks has mean zero. Variance per probe, for Rademacher: that of the block's own
    trace, and ``sum H_ij^2`` over i in the block and j outside. With blocks for layers these are the traces of
    HAWQ-V2 (arXiv 1911.03852).

    Args:
        product: ``v -> H v``.
        probes: one product each.
        sizes: elements of the blocks, one after another.

    Raises:
        ValueError: there is no probe.
    """
    ends = [int(end) for end in np.cumsum(sizes)[:-1]]

    def blocks(z: Array) -> Array:
        return jnp.stack([part.sum() for part in jnp.split(_wide(z) * _wide(product(z)), ends)])

    return average(probes, blocks)


def hutchpp_trace(product: Product, sketch: Array, probes: Probes) -> Estimate:
    """``tr H = tr(Q'HQ)`` exactly ``+`` the mean of ``y'Hy`` with ``y = (I - QQ') z``: Hutch++, ``[]``.

    ``Q`` spans ``H S'`` for the rows of the sketch ``S``. Exact where the rank of H is at most the number of rows; the
    error falls with 1/m in m products instead of 1/sqrt(m) where the spectrum decays. The standard error is that of
    the second part.

    Args:
        product: ``v -> H v``.
        sketch: ``S [k, d]``, random rows; two products each.
        probes: one product each, independent of the sketch.

    Raises:
        ValueError: there is no probe.

    Reference: Meyer, Musco, Musco, Woodruff 2021, arXiv 2010.09649.
    """
    Q = jnp.linalg.qr(lax.map(product, sketch).T)[0]  # [d, k]
    exact = lax.map(lambda q: _dot(q, product(q)), Q.T).sum()

    def rest(z: Array) -> Array:
        y = z - _dot(Q, _dot(Q.T, z))
        return _dot(y, product(y))

    found = average(probes, rest)
    return found._replace(value=found.value + exact)


def average(draws: Probes, function: Callable[[Array], Array] = lambda z: z) -> Estimate:
    """Mean and standard error of ``function(draw)``, one pass, nothing kept (Welford); half precision is widened.

    Raises:
        ValueError: there is nothing to average.
    """

    def add(carry: Any, draw: Array) -> tuple[Any, None]:
        n, mean, squares = carry
        value = _wide(function(draw))
        n = n + 1
        off = value - mean
        mean = mean + off / n
        return (n, mean, squares + off * (value - mean)), None

    carry, number = None, 0
    if isinstance(draws, Array):
        number = len(draws)
        if number:
            shape = jax.eval_shape(lambda z: _wide(function(z)), jax.ShapeDtypeStruct(draws.shape[1:], draws.dtype))
            carry, _ = lax.scan(add, _empty(shape), draws)
    else:
        for draw in draws:
            if carry is None:
                carry = _empty(jax.eval_shape(lambda z: _wide(function(z)), draw))
            carry, _ = add(carry, draw)
            number += 1
    if carry is None:
        raise ValueError("probes: there is none: at least one is needed")
    _, mean, squares = carry
    error = jnp.sqrt(squares / (number * (number - 1))) if number > 1 else jnp.full_like(mean, jnp.nan)
    return Estimate(mean, error, number)


def _empty(like: Any) -> tuple[Array, Array, Array]:
    return jnp.zeros((), like.dtype), jnp.zeros(like.shape, like.dtype), jnp.zeros(like.shape, like.dtype)


def _wide(values: Array) -> Array:
    return values.astype(jnp.float32) if values.dtype in (jnp.float16, jnp.bfloat16) else values


def _dot(A: Array, x: Array) -> Array:
    return jnp.dot(A, x, precision=lax.Precision.HIGHEST)
