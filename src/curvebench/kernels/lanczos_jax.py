"""Lanczos in jax with full re-orthogonalisation, and the spectral density that it gives by stochastic quadrature.

``H [d, d]`` symmetric, known by ``product: v [d] -> H v [d]``; ``k`` steps from a start ``v [d]`` give the tridiagonal
``T [k, k] = Q H Q'`` with orthonormal rows ``Q [k, d]``. ``T``'s eigenvalues ``theta_i`` (Ritz values) with weights
``tau_i``, the squared first entries of its eigenvectors, are a Gauss quadrature:
``v' p(H) v / |v|^2 = sum_i tau_i p(theta_i)`` for every polynomial p of degree up to 2k - 1.

All steps are one compiled loop. How many there were is known after it only, so these functions are called outside of
``jit``; what is small, the quadrature, is float64 in NumPy and needs no x64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax

from curvebench.errors import CurvebenchError
from curvebench.kernels.hutchinson_jax import Estimate
from curvebench.kernels.ritz import RitzValues

Product = Callable[[Array], Array]
Values = npt.NDArray[np.float64]


class Tridiagonal(NamedTuple):
    """What ``k`` steps of Lanczos give.

    Args:
        diagonal: of T, ``[k]``.
        off_diagonal: of T, ``[k - 1]``, positive.
        residual: the next off-diagonal entry, ``[]``: 0 where the Krylov space is exhausted.
        basis: ``Q [k, d]``, orthonormal rows.
    """

    diagonal: Array
    off_diagonal: Array
    residual: Array
    basis: Array

    def matrix(self) -> Array:
        """``T [k, k]``."""
        found: Array = jnp.diag(self.diagonal)
        return found + jnp.diag(self.off_diagonal, 1) + jnp.diag(self.off_diagonal, -1)


def lanczos(product: Product, start: Array, steps: int) -> Tridiagonal:
    """``steps`` steps of Lanczos, every new vector orthogonalised against all before it, twice.

    Stops early where the Krylov space is exhausted: at the number of distinct eigenvalues that the start has a part in.
    Costs ``steps`` products, ``steps * d`` numbers and ``O(steps^2 d)`` arithmetic.

    Args:
        product: ``v -> H v``.
        start: ``v [d]``, not zero.
        steps: at least 1; never more than d are taken.

    Raises:
        ValueError: ``steps`` below 1 or a start that is zero or not finite.
        CurvebenchError: a product is not finite.
    """
    return _checked(jax.jit(partial(_krylov, product), static_argnums=1), start, steps)


@dataclass(frozen=True)
class Spectrum(RitzValues):
    """Quadratures of the spectral measure ``1/d sum_i delta(lambda - lambda_i)``, one for every start.

    Args:
        nodes: Ritz values of each start, ascending, ``[k]``, float64 in NumPy.
        weights: their weights, which sum to 1.
        bounds: an eigenvalue of H lies within ``bounds[s][i]`` of ``nodes[s][i]``.
    """

    nodes: tuple[Values, ...]
    weights: tuple[Values, ...]
    bounds: tuple[Values, ...]

    def moment(self, k: int) -> Estimate:
        """``tr(H^k) / d``: the mean over starts, unbiased for k up to ``2 steps - 1``."""
        each = np.array([(w * t**k).sum() for t, w in zip(self.nodes, self.weights, strict=True)])
        n = len(each)
        error = each.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
        return Estimate(np.asarray(each.mean()), np.asarray(error), n)

    def density(self, grid: Any, width: float) -> Values:
        """Density ``[n]`` at the points ``grid [n]``, every delta a Gaussian of standard deviation ``width`` > 0.

        Raises:
            ValueError: the width is not positive.
        """
        if not width > 0:
            raise ValueError(f"width = {width}: must lie in (0, inf)")
        points = np.asarray(grid, np.float64)
        total = np.zeros_like(points)
        for t, w in zip(self.nodes, self.weights, strict=True):
            bumps = np.exp(-((points[:, None] - t) ** 2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))
            total += bumps @ w
        return total / len(self.nodes)


def spectrum(product: Product, starts: Iterable[Array], steps: int) -> Spectrum:
    """Stochastic Lanczos quadrature: one quadrature of ``steps`` nodes for every start, all by one compiled program.

    The mean over standard normal or Rademacher starts of ``sum_i tau_i p(theta_i)`` is ``tr p(H) / d``, exactly so in
    expectation for polynomials of degree up to ``2 steps - 1``.

    Args:
        product: ``v -> H v``.
        starts: random ``[d]``; ``steps`` products each.
        steps: nodes of each quadrature.

    Raises:
        ValueError: no start, one that is zero, or ``steps`` below 1.
        CurvebenchError: a product is not finite.

    Reference: Golub, Welsch 1969; Ubaru, Chen, Saad 2017; Papyan 2020, jmlr.org/papers/v21/20-933.html.
    """
    run = jax.jit(partial(_krylov, product), static_argnums=1)
    nodes, weights, bounds = [], [], []
    for start in starts:
        found = _checked(run, start, steps)
        off = np.asarray(found.off_diagonal, np.float64)
        matrix = np.diag(np.asarray(found.diagonal, np.float64)) + np.diag(off, 1) + np.diag(off, -1)
        values, vectors = np.linalg.eigh(matrix)
        nodes.append(values)
        weights.append(vectors[0] ** 2)
        bounds.append(float(found.residual) * np.abs(vectors[-1]))
    if not nodes:
        raise ValueError("starts: there is none: at least one is needed")
    return Spectrum(tuple(nodes), tuple(weights), tuple(bounds))


class _State(NamedTuple):
    """Of the loop: rows that are still to come are zero, so a product with all rows is one with those that are there.

    Args:
        basis: ``Q [k, d]``.
        diagonal: ``[k]``.
        off: ``[k]``, the last one the residual.
        taken: steps so far, ``[]``.
        scale: of H, as seen so far, ``[]``.
        go: whether there is another step.
        finite: whether every product was.
    """

    basis: Array
    diagonal: Array
    off: Array
    taken: Array
    scale: Array
    go: Array
    finite: Array


def _krylov(product: Product, start: Array, steps: int) -> _State:
    # What orthogonalising twice leaves of a vector that lies in the span is rounding, of about this size beside |H|.
    noise = 10 * float(np.finfo(start.dtype).eps) * math.sqrt(start.size)

    def dot(a: Array, b: Array) -> Array:
        return jnp.dot(a, b, precision=lax.Precision.HIGHEST)

    def step(s: _State) -> _State:
        j, q = s.taken, lax.dynamic_index_in_dim(s.basis, s.taken, 0, keepdims=False)
        w = product(q)
        alpha = dot(q, w)
        for _ in range(2):
            w = w - dot(s.basis.T, dot(s.basis, w))
        beta = jnp.sqrt(dot(w, w))
        finite = jnp.isfinite(alpha + beta)
        scale = jnp.maximum(s.scale, jnp.abs(alpha) + beta)
        exhausted = beta <= noise * scale
        go = finite & ~exhausted & (j + 1 < steps)
        kept = jnp.where(exhausted, jnp.zeros_like(beta), beta)
        # The row after the last one is never written: it would fall on the last one.
        basis = lax.cond(go, lambda b: lax.dynamic_update_index_in_dim(b, w / beta, j + 1, 0), lambda b: b, s.basis)
        return _State(basis, s.diagonal.at[j].set(alpha), s.off.at[j].set(kept), j + 1, scale, go, finite)

    zero = jnp.zeros(steps, start.dtype)
    basis = jnp.zeros((steps, start.size), start.dtype).at[0].set(start / jnp.sqrt(dot(start, start)))
    yes = jnp.bool_(True)
    first = _State(basis, zero, zero, jnp.int32(0), jnp.zeros((), start.dtype), yes, yes)
    return lax.while_loop(lambda s: s.go, step, first)


def _checked(run: Callable[[Array, int], _State], start: Array, steps: int) -> Tridiagonal:
    if steps < 1:
        raise ValueError(f"steps = {steps}: must lie in [1, inf)")
    length = float(jnp.linalg.norm(start))
    if not 0 < length < math.inf:
        raise ValueError(f"start: its length is {length:g}: must lie in (0, inf)")
    found = run(start, min(steps, start.size))
    k = int(found.taken)
    if not found.finite:
        raise CurvebenchError(f"lanczos: the product with the vector of step {k} is not finite")
    return Tridiagonal(found.diagonal[:k], found.off[: k - 1], found.off[k - 1], found.basis[:k])
