"""M-FAC's sliding window in jax: products with the inverse of ``F = damping I + (1/m) G'G`` while ``G`` changes.

Shapes: ``m`` gradients in the window, ``d`` parameters; ``G [m, d]`` holds one gradient a row, ``S = G G' [m, m]``.
The window is a tree of arrays; in a jitted step that donates it a row is overwritten where it lies. ``m`` by ``m``
systems are solved in float64, which is switched on for these few operations alone and needs no x64 outside.
Source: Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356. The static counterpart is in ``mfac_static_jax``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from curvebench.errors import HyperparameterError

FORMULAS = ("in-span", "official")
PIECE = 1 << 17
"""Most columns of the window that one float32 product sums: longer sums lose digits."""
COLUMNS = 2000
"""Partial sums of a row of a longer window; they stay in cache."""
SMALL = 1 << 17
"""Numbers in a float32 window up to which its products are float64."""


class SlidingWindow(NamedTuple):
    """The last ``m`` gradients in a ring, oldest replaced first, and ``S`` beside them.

    The divisor is ``m`` also while rows are still zero. ``S`` is the sum of two numbers of the window's dtype: rounded
    to one float32, and amplified by its condition, it would be the largest error of a product.

    Args:
        gradients: ``G [m, d]``.
        gram: ``S = gram[0] + gram[1]``, ``[2, m, m]``.
        slot: the row that the next gradient replaces, ``[]``.
    """

    gradients: Array
    gram: Array
    slot: Array


def sliding_window(window: int, dimension: int, dtype: Any = jnp.float32) -> SlidingWindow:
    """An empty window.

    Args:
        window: ``m``, at least 1.
        dimension: ``d``.
        dtype: float32 or float64.

    Raises:
        HyperparameterError: a value outside its range.
    """
    if not window >= 1:
        raise HyperparameterError(f"M-FAC: window = {window!r}: must lie in [1, inf)")
    if jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise HyperparameterError(f"M-FAC: dtype = {jnp.dtype(dtype)}: must be float32 or float64")
    return SlidingWindow(
        jnp.zeros((window, dimension), dtype), jnp.zeros((2, window, window), dtype), jnp.zeros((), jnp.int32)
    )


def push(ring: SlidingWindow, gradient: Array) -> tuple[SlidingWindow, Array]:
    """Let ``gradient [d]`` replace the oldest row; False, and nothing has changed, if its square is not finite.

    By Cauchy-Schwarz no product with another row overflows where no square does.
    """
    m, finite = len(ring.gradients), jnp.isfinite(jnp.vdot(gradient, gradient))
    # Choosing between the new row and the old one would read the window once more, and XLA would copy it for that.
    gradients = lax.cond(
        finite,
        lambda G: lax.dynamic_update_index_in_dim(G, gradient, ring.slot, 0),
        lambda G: G,
        ring.gradients,
    )
    pair = jnp.stack(_halves(_products(gradients, gradient), ring.gram.dtype))  # [2, m]
    pair = jnp.where(finite, pair, lax.dynamic_index_in_dim(ring.gram, ring.slot, 1, keepdims=False))
    gram = lax.dynamic_update_index_in_dim(ring.gram, pair, ring.slot, 1)
    gram = lax.dynamic_update_index_in_dim(gram, pair, ring.slot, 2)
    slot = jnp.where(finite, (ring.slot + 1) % m, ring.slot)
    return SlidingWindow(gradients, gram, slot), finite


def direction(ring: SlidingWindow, damping: float, *, formula: str = "in-span") -> Array:
    """``F^-1 g [d]`` for the newest gradient ``g``.

    In span: ``F^-1 g_j = m G' (m damping I + S)^-1 e_j``, one pass over the window; nothing cancels.

    Args:
        ring: the window.
        damping: > 0.
        formula: ``'in-span'``, or ``'official'``: the authors' recursion in the window's own precision.

    Raises:
        HyperparameterError: a value outside its range.
    """
    check_damping(damping)
    check_formula(formula)
    G, m = ring.gradients, len(ring.gradients)
    newest = (ring.slot - 1) % m
    if formula == "official":
        dots = lax.dynamic_index_in_dim(ring.gram[0], newest, 0, keepdims=False)
        row = lax.dynamic_index_in_dim(G, newest, 0, keepdims=False)
        found: Array = row / damping - _combine(G, _official_weights(ring.gram[0], damping, dots))
        return found
    with jax.enable_x64(True):
        unit = jnp.where(jnp.arange(m, dtype=jnp.int32) == newest, jnp.float64(m), jnp.float64(0))
        weights = _solved(ring.gram, damping, unit)
    return _combine(G, weights)


def solve(ring: SlidingWindow, damping: float, vector: Array, *, formula: str = "in-span") -> Array:
    """``F^-1 x = (x - G' (m damping I + S)^-1 G x) / damping`` for any ``vector [d]``: two passes over the window.

    For a gradient of the window itself :func:`direction` is exact where this one cancels.

    Raises:
        HyperparameterError: a value outside its range.
    """
    check_damping(damping)
    check_formula(formula)
    dots = _products(ring.gradients, vector)
    if formula == "official":
        narrow, _ = _halves(dots, vector.dtype)
        return vector / damping - _combine(ring.gradients, _official_weights(ring.gram[0], damping, narrow))
    return (vector - _combine(ring.gradients, _solved(ring.gram, damping, dots))) / damping


def widen(ring: SlidingWindow, dimension: int) -> SlidingWindow:
    """Append parameters: the gradients so far count as zero there."""
    more = dimension - ring.gradients.shape[1]
    return ring._replace(gradients=jnp.pad(ring.gradients, ((0, 0), (0, more))))


def check_damping(damping: float) -> None:
    """Refuse a damping that leaves ``F`` singular.

    Raises:
        HyperparameterError: it is not in (0, inf).
    """
    if not 0 < damping < float("inf"):
        raise HyperparameterError(f"M-FAC: damping = {damping!r}: must lie in (0, inf)")


def check_formula(formula: str) -> None:
    """Refuse an unknown formula.

    Raises:
        HyperparameterError: it is none of :data:`FORMULAS`.
    """
    if formula not in FORMULAS:
        raise HyperparameterError(f"M-FAC: formula = {formula!r}: must be one of {', '.join(map(repr, FORMULAS))}")


def cholesky(gram: Array, shift: float, eps: float) -> Array:
    """Lower ``C [..., m, m]`` with ``C C' = S + shift I``; called where float64 is on.

    Args:
        gram: ``S [..., m, m]``, float64, positive semi-definite up to rounding.
        shift: > 0.
        eps: unit of rounding with which ``S`` was computed: what may be added to its diagonal, times its trace, where
            rounding has made it indefinite. Not finite where ``S`` is not.
    """
    identity = jnp.eye(gram.shape[-1], dtype=gram.dtype)
    shifted = gram + shift * identity
    trace = eps * jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None]

    def broken(carry: tuple[Array, Array, Array]) -> Array:
        factor, _, tries = carry
        return ~jnp.isfinite(factor).all() & (tries < 8)

    def again(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        factor, nudge, tries = carry
        bad = ~jnp.isfinite(factor).all(axis=(-2, -1), keepdims=True)
        nudge = jnp.where(bad, jnp.maximum(5 * nudge, jnp.ones_like(nudge)), nudge)
        return lax.linalg.cholesky(shifted + nudge * trace * identity), nudge, tries + 1

    first = lax.linalg.cholesky(shifted), jnp.zeros_like(trace), jnp.zeros((), jnp.int32)
    return lax.while_loop(broken, again, first)[0]


def _solved(gram: Array, damping: float, right: Array) -> Array:
    """``(m damping I + S)^-1 right [m]``, float64, for ``S`` in two halves."""
    m = len(right)
    eps = float(np.finfo(gram.dtype).eps)
    with jax.enable_x64(True):
        S = gram[0].astype(jnp.float64) + gram[1].astype(jnp.float64)
        factor = cholesky(S, m * damping, eps)
        half = lax.linalg.triangular_solve(factor, right.astype(jnp.float64)[:, None], left_side=True, lower=True)
        return lax.linalg.triangular_solve(factor, half, left_side=True, lower=True, transpose_a=True)[:, 0]


def _halves(numbers: Array, dtype: Any) -> tuple[Array, Array]:
    """``numbers = high + low`` of a dtype; ``low`` is zero where nothing is lost."""
    with jax.enable_x64(True):
        high = numbers.astype(dtype)
        return high, (numbers - high.astype(numbers.dtype)).astype(dtype)


def _products(G: Array, vector: Array) -> Array:
    """``G x [m]``, float64: sums of the window's dtype, of a small window float64."""
    d = len(vector)
    with jax.enable_x64(True):
        if G.size <= SMALL:
            return _dot(G.astype(jnp.float64), vector.astype(jnp.float64))
        if d <= PIECE:
            return _dot(G, vector).astype(jnp.float64)
        return _summed_in_columns(G, vector)


def _summed_in_columns(G: Array, vector: Array) -> Array:
    """``G x [m]``, float64, as :data:`COLUMNS` partial sums a row: slower than one product by half, and far closer."""
    m, d = G.shape

    def add(i: Array, sums: Array) -> Array:
        start = i * COLUMNS
        part = lax.dynamic_slice_in_dim(G, start, COLUMNS, 1)
        return sums + part * lax.dynamic_slice_in_dim(vector, start, COLUMNS)

    whole = d // COLUMNS
    sums = lax.fori_loop(0, whole, add, jnp.zeros((m, COLUMNS), G.dtype)).astype(jnp.float64).sum(1)
    rest = whole * COLUMNS
    total: Array = sums + _dot(G[:, rest:], vector[rest:]).astype(jnp.float64)
    return total


def _combine(G: Array, weights: Array) -> Array:
    """``G' weights [d]`` in the window's dtype."""
    with jax.enable_x64(True):
        wide = jnp.float64 if G.size <= SMALL else G.dtype
        combined: Array = lax.dot_general(
            weights.astype(wide), G.astype(wide), (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
        )
        return combined.astype(G.dtype)


def _dot(A: Array, x: Array) -> Array:
    """``A x`` without the rounding to bfloat16 that an accelerator may put in."""
    return jnp.dot(A, x, precision=lax.Precision.HIGHEST)


def _official_weights(gram: Array, damping: float, dots: Array) -> Array:
    """``c [m]`` of ``F^-1 x = x/damping - G'c`` by the authors' recursion, in the dtype of ``gram``.

    ``D_ij = S_ij/damping - sum_{k<i} D_ki D_kj / delta_k`` (upper), ``delta = m + diag D``; ``B_ii = 1/damping``,
    ``B_i = -sum_{k<i} D_ki/delta_k B_k`` (lower); ``p_k = (G x)_k/damping - sum_{l<k} D_lk/delta_l p_l``;
    ``c = (p/delta) B``. Rows that are still to come are zero, so that a full sum is the sum over ``k < i``.
    """
    m = len(gram)
    columns = jnp.arange(m)

    def row(i: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        D, B, delta, p = carry
        ratio = jnp.where(columns < i, D[:, i] / delta, 0)
        D = D.at[i].set(jnp.where(columns >= i, gram[i] / damping - _dot(D.T, ratio), 0))
        delta = delta.at[i].set(m + D[i, i])
        B = B.at[i].set(jnp.where(columns < i, -_dot(B.T, ratio), B[i]))
        return D, B, delta, p.at[i].add(-jnp.dot(ratio, p, precision=lax.Precision.HIGHEST))

    start = (jnp.zeros_like(gram), jnp.eye(m, dtype=gram.dtype) / damping, jnp.ones_like(dots), dots / damping)
    _, B, delta, p = lax.fori_loop(0, m, row, start)
    return _dot(B.T, p / delta)
