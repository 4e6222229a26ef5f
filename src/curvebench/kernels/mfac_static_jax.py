"""M-FAC for a fixed set of gradients in jax: ``F^-1`` for ``F = damping I + (1/m) G'G``, whole or in diagonal blocks.

Shapes: ``m`` gradients, ``d`` weights, ``G [m, d]``; blocks are contiguous pieces of ``b`` weights, the last shorter.
``Z = C^-1 G`` with ``C`` the Cholesky factor of ``m damping I + G G'`` gives ``F^-1 = (I - Z'Z) / damping``; a block of
at most ``m`` weights is inverted directly: ``F^-1 = K^-T K^-1``. Small systems are solved in float64, which is switched
on for these operations alone. The sliding counterpart is in ``mfac_jax``.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.mfac_jax import check_damping, cholesky

PIECE_BYTES = 1 << 21
"""Bytes of the gradients that one product in their own precision sums; the sums of pieces are float64."""
BATCH_BYTES = 1 << 28
"""Working memory of the blocks that are factored together."""


class Span(NamedTuple):
    """Equal blocks side by side: each inverse is ``identity I + sign W'W``.

    Args:
        start: first weight.
        factor: ``W [blocks, rank, b]``, rank = min(m, b).
        identity: ``1/damping``, or 0.
        sign: ``-1/damping``, or 1.
    """

    start: int
    factor: Array
    identity: float
    sign: float

    @property
    def stop(self) -> int:
        """One past the last weight."""
        return self.start + int(self.factor.shape[0] * self.factor.shape[2])


class StaticInverse:
    """``F^-1`` of a matrix of gradients. O(m d min(m, b)) to set up, O(m d) a product or the diagonal, O(m) an element.

    Set up outside of ``jit``, since what is not finite is an error; products, diagonal and elements may be traced.

    Args:
        gradients: ``G [m, d]`` of float32 or float64; it is only read, and need not be kept.
        damping: > 0.
        block: ``b``, at least 1; by default one block for all weights.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: gradients of another shape or dtype, or not finite.

    Differs from the authors' code: gradients are not overwritten, and all of the given rows count. Differs from torch's
    kernel: there is no ``device``; all is computed where the gradients lie.
    """

    def __init__(self, gradients: Array, damping: float, *, block: int | None = None) -> None:
        check_damping(damping)
        if block is not None and not block >= 1:
            raise HyperparameterError(f"M-FAC: block = {block!r}: must lie in [1, inf)")
        if gradients.ndim != 2 or not gradients.size or gradients.dtype not in (jnp.float32, jnp.float64):
            raise CurvebenchError(
                f"M-FAC: gradients of shape {list(gradients.shape)} and {gradients.dtype}: "
                "must be [m, d], float32 or float64"
            )
        self.damping = float(damping)
        self.rows, self.dimension = gradients.shape
        self.block = min(block or self.dimension, self.dimension)
        whole = self.dimension // self.block
        self._spans = [self._span(gradients, 0, whole, self.block)]
        if rest := self.dimension - whole * self.block:
            self._spans.append(self._span(gradients, self.dimension - rest, 1, rest))

    # -- queries --------------------------------------------------------------------------------------------------

    def ihvp(self, vectors: Array) -> Array:
        """``F^-1 x`` for ``vectors [d]`` or ``[k, d]``, in their shape."""
        if vectors.ndim > 1:
            found: Array = lax.map(self.ihvp, vectors)
            return found
        return jnp.concatenate([_apply(s.factor, vectors[s.start : s.stop], s.identity, s.sign) for s in self._spans])

    def diagonal(self) -> Array:
        """``diag(F^-1) [d]``."""
        return jnp.concatenate([_diagonal(s.factor, s.identity, s.sign) for s in self._spans])

    def elements(self, i: Array, j: Array) -> Array:
        """``[F^-1]_ij [k]`` for index vectors ``i [k]`` and ``j [k]``, O(m) each; zero between blocks.

        Raises:
            IndexError: an index outside ``[0, d)``, where the indices are known.
        """
        for index in (i, j):
            if not isinstance(index, jax.core.Tracer) and bool(((index < 0) | (index >= self.dimension)).any()):
                raise IndexError(
                    f"M-FAC: elements from {int(index.min())} to {int(index.max())}: must lie in [0, {self.dimension})"
                )
        same = i // self.block == j // self.block
        out = jnp.zeros(i.shape, self._spans[0].factor.dtype)
        for span in self._spans:
            here = same & (i >= span.start) & (i < span.stop)
            found = _elements(span.factor, i - span.start, j - span.start, span.identity, span.sign)
            out = jnp.where(here, found, out)
        return out

    # -- set-up ---------------------------------------------------------------------------------------------------

    def _span(self, gradients: Array, start: int, blocks: int, width: int) -> Span:
        direct = width <= self.rows
        piece = gradients[:, start : start + blocks * width]
        if blocks == 1:
            factor = (_direct if direct else _downdate)(piece, self.damping)[None]
        else:
            batch = max(1, BATCH_BYTES // (8 * max(width, self.rows) ** 2))
            factor = _blocks(piece, self.damping, blocks, min(batch, blocks))
        if not bool(jnp.isfinite(factor).all()):
            raise CurvebenchError("M-FAC: the gradients or their products are not finite")
        if direct:
            return Span(start, factor, 0.0, 1.0)
        return Span(start, factor, 1 / self.damping, -1 / self.damping)


@partial(jax.jit, static_argnames=("blocks", "batch"))
def _blocks(gradients: Array, damping: float, blocks: int, batch: int) -> Array:
    """The factors ``[blocks, rank, b]`` of equal blocks, ``batch`` of them at a time."""
    m, d = gradients.shape
    make = _direct if d // blocks <= m else _downdate
    pieces = gradients.reshape(m, blocks, d // blocks).transpose(1, 0, 2)
    found: Array = lax.map(lambda G: make(G, damping), pieces, batch_size=batch)
    return found


@jax.jit
def _downdate(gradients: Array, damping: float) -> Array:
    """``Z = C^-1 G [m, b]`` of a block that is longer than ``m``, with ``C C' = m damping I + G G'``."""
    m, b = gradients.shape
    width = max(1, PIECE_BYTES // (m * gradients.dtype.itemsize))
    with jax.enable_x64(True):
        whole = b // width if gradients.dtype == jnp.float32 else 0

        def add(k: Array, gram: Array) -> Array:
            part = lax.dynamic_slice_in_dim(gradients, k * width, width, 1)
            return gram + _product(part, part.T).astype(jnp.float64)

        gram = jnp.zeros((m, m), jnp.float64)
        if whole:
            gram = lax.fori_loop(0, whole, add, gram)
        rest = gradients[:, whole * width :]
        gram = gram + _product(rest, rest.T).astype(jnp.float64)
        inverse = _lower_inverse(cholesky(gram, m * damping, float(np.finfo(gradients.dtype).eps)))
        return _product(inverse.astype(gradients.dtype), gradients)


@jax.jit
def _direct(gradients: Array, damping: float) -> Array:
    """``K^-1 [b, b]`` of a block ``[m, b]`` with at most ``m`` weights: ``F = K K'``."""
    with jax.enable_x64(True):
        fisher = _product(gradients.T, gradients).astype(jnp.float64) / len(gradients)
        inverse = _lower_inverse(cholesky(fisher, damping, float(np.finfo(gradients.dtype).eps)))
        return inverse.astype(gradients.dtype)


def _lower_inverse(factor: Array) -> Array:
    return lax.linalg.triangular_solve(factor, jnp.eye(len(factor), dtype=factor.dtype), left_side=True, lower=True)


@jax.jit
def _apply(factor: Array, x: Array, identity: float, sign: float) -> Array:
    """``identity x + sign W'(W x)`` over the blocks of a span."""
    columns = x.reshape(len(factor), factor.shape[2])
    inner = jnp.einsum("nrb,nb->nr", factor, columns, precision=lax.Precision.HIGHEST)
    product = jnp.einsum("nrb,nr->nb", factor, inner, precision=lax.Precision.HIGHEST)
    return (identity * columns + sign * product).reshape(-1)


@jax.jit
def _diagonal(factor: Array, identity: float, sign: float) -> Array:
    return (identity + sign * jnp.square(factor).sum(1)).reshape(-1)


@jax.jit
def _elements(factor: Array, i: Array, j: Array, identity: float, sign: float) -> Array:
    """Elements by index within the span; indices outside of it give numbers that the caller leaves out."""
    width = factor.shape[2]
    number = jnp.clip(i // width, 0, len(factor) - 1)
    inner = (factor[number, :, i % width] * factor[number, :, j % width]).sum(-1)
    return identity * (i == j).astype(inner.dtype) + sign * inner


def _product(A: Array, B: Array) -> Array:
    return jnp.matmul(A, B, precision=lax.Precision.HIGHEST)


# -- optimal brain surgeon ---------------------------------------------------------------------------------------


def obs_scores(weights: Array, diagonal: Array) -> Array:
    """``w_p^2 / (2 [F^-1]_pp) [d]``: by how much the quadratic model grows when weight ``p`` alone is removed."""
    return jnp.square(weights) / diagonal / 2


def obs_update(inverse: StaticInverse, weights: Array, diagonal: Array, drop: Array) -> Array:
    """The weights ``[d]`` after those at the indices ``drop`` are removed and the others make up for it.

    ``w + F^-1 t`` with ``t_p = -w_p/[F^-1]_pp`` on the dropped ones: the sum of single removals, cross terms left out
    as in the authors' code; then exactly zero at ``drop``.
    """
    step = jnp.zeros_like(weights).at[drop].set(-weights[drop] / diagonal[drop])
    return (weights + inverse.ihvp(step)).at[drop].set(0.0)


def obs_joint_update(inverse: StaticInverse, weights: Array, drop: Array) -> Array:
    """The weights ``[d]`` after those at ``drop [k]`` are removed, where the quadratic model is least: for comparison.

    ``w - F^-1 E (E' F^-1 E)^-1 E' w`` with ``E`` the columns of the identity at ``drop``; O(m k^2 + k^3).
    """
    k = len(drop)
    if not k:
        return weights
    inner = inverse.elements(jnp.repeat(drop, k), jnp.tile(drop, k)).reshape(k, k)
    with jax.enable_x64(True):
        solved = jnp.linalg.solve(inner.astype(jnp.float64), weights[drop].astype(jnp.float64)).astype(weights.dtype)
    return (weights + inverse.ihvp(jnp.zeros_like(weights).at[drop].set(-solved))).at[drop].set(0.0)
