"""Lanczos with full re-orthogonalisation, and the spectral density that it gives by stochastic quadrature.

``H [d, d]`` symmetric, known by ``product: v [d] -> H v [d]``; ``k`` steps from a start ``v [d]`` give the tridiagonal
``T [k, k] = Q H Q'`` with orthonormal rows ``Q [k, d]``. ``T``'s eigenvalues ``theta_i`` (Ritz values) with weights
``tau_i``, the squared first entries of its eigenvectors, are a Gauss quadrature:
``v' p(H) v / |v|^2 = sum_i tau_i p(theta_i)`` for every polynomial p of degree up to 2k - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError
from curvebench.kernels.hutchinson_torch import Estimate, average
from curvebench.kernels.ritz import RitzValues

Product = Callable[[Tensor], Tensor]


class Tridiagonal(NamedTuple):
    """What ``k`` steps of Lanczos give.

    Args:
        diagonal: of T, ``[k]``.
        off_diagonal: of T, ``[k - 1]``, positive.
        residual: the next off-diagonal entry, ``[]``: 0 where the Krylov space is exhausted.
        basis: ``Q [k, d]``, orthonormal rows.
    """

    diagonal: Tensor
    off_diagonal: Tensor
    residual: Tensor
    basis: Tensor

    def matrix(self) -> Tensor:
        """``T [k, k]``."""
        return self.diagonal.diag() + self.off_diagonal.diag(1) + self.off_diagonal.diag(-1)


@torch.no_grad()
def lanczos(product: Product, start: Tensor, steps: int) -> Tridiagonal:
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
    if steps < 1:
        raise ValueError(f"steps = {steps}: must lie in [1, inf)")
    length = torch.linalg.vector_norm(start)
    if not (length > 0 and length.isfinite()):
        raise ValueError(f"start: its length is {float(length):g}: must lie in (0, inf)")
    steps = min(steps, start.numel())
    basis = start.new_empty(steps, start.numel())
    basis[0] = start / length
    diagonal: list[Tensor] = []
    off: list[Tensor] = []
    # What orthogonalising twice leaves of a vector that lies in the span is rounding, of about this size beside |H|.
    noise, scale = 10 * torch.finfo(start.dtype).eps * math.sqrt(start.numel()), start.new_zeros(())
    for j in range(steps):
        w = product(basis[j])
        done = basis[: j + 1]
        alpha = torch.dot(basis[j], w)
        w = w - done.T @ (done @ w)
        w = w - done.T @ (done @ w)
        beta = torch.linalg.vector_norm(w)
        if not (alpha + beta).isfinite():
            raise CurvebenchError(f"lanczos: the product with the vector of step {j + 1} is not finite")
        diagonal.append(alpha)
        scale = torch.maximum(scale, alpha.abs() + beta)
        exhausted = bool(beta <= noise * scale)
        off.append(torch.zeros_like(beta) if exhausted else beta)
        if exhausted or j + 1 == steps:
            break
        basis[j + 1] = w / beta
    k = len(diagonal)
    return Tridiagonal(torch.stack(diagonal), torch.stack(off)[: k - 1], off[-1], basis[:k])


@dataclass(frozen=True)
class Spectrum(RitzValues):
    """Quadratures of the spectral measure ``1/d sum_i delta(lambda - lambda_i)``, one for every start.

    Args:
        nodes: Ritz values of each start, ascending, ``[k]``, float64 on the CPU.
        weights: their weights, which sum to 1.
        bounds: an eigenvalue of H lies within ``bounds[s][i]`` of ``nodes[s][i]``.
    """

    nodes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    bounds: tuple[Tensor, ...]

    def moment(self, k: int) -> Estimate:
        """``tr(H^k) / d``: the mean over starts, unbiased for k up to ``2 steps - 1``."""
        return average((w * t**k).sum() for t, w in zip(self.nodes, self.weights, strict=True))

    def density(self, grid: Tensor, width: float) -> Tensor:
        """Density ``[n]`` at the points ``grid [n]``, every delta a Gaussian of standard deviation ``width`` > 0.

        Raises:
            ValueError: the width is not positive.
        """
        if not width > 0:
            raise ValueError(f"width = {width}: must lie in (0, inf)")
        points = grid.to(self.nodes[0])
        total = torch.zeros_like(points)
        for t, w in zip(self.nodes, self.weights, strict=True):
            bumps = torch.exp(-((points[:, None] - t) ** 2) / (2 * width**2)) / (width * math.sqrt(2 * math.pi))
            total += bumps @ w
        return total / len(self.nodes)


@torch.no_grad()
def spectrum(product: Product, starts: Iterable[Tensor], steps: int) -> Spectrum:
    """Stochastic Lanczos quadrature: one quadrature of ``steps`` nodes for every start.

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
    nodes, weights, bounds = [], [], []
    for start in starts:
        found = lanczos(product, start, steps)
        values, vectors = torch.linalg.eigh(found.matrix().to("cpu", torch.float64))
        nodes.append(values)
        weights.append(vectors[0] ** 2)
        bounds.append(float(found.residual) * vectors[-1].abs())
    if not nodes:
        raise ValueError("starts: there is none: at least one is needed")
    return Spectrum(tuple(nodes), tuple(weights), tuple(bounds))
