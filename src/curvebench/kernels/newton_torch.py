"""Directions of second-order methods from dense curvature, in torch.

Definitions in NumPy: :mod:`curvebench.kernels.reference_newton`.
Shapes: ``H, G, B [d, d]`` symmetric, ``g [d]``. All functions return None where the linear system cannot be solved.
"""

from __future__ import annotations

import torch
from torch import Tensor

CURVATURES = ("hessian", "absolute")
_linalg = torch.linalg


def newton_direction(H: Tensor, g: Tensor, damping: float, curvature: str = "hessian") -> Tensor | None:
    """``(H + damping I)^-1 g``, or ``(|H| + damping I)^-1 g`` with the absolute eigenvalues, ``[d]``."""
    if curvature == "absolute":
        values, vectors = _linalg.eigh(H)
        scale = values.abs_().add_(damping)
        return vectors @ ((vectors.T @ g) / scale) if bool((scale > 0).all()) else None
    damped = H.clone()
    damped.diagonal().add_(damping)
    found, info = _linalg.solve_ex(damped, g)
    return found if int(info) == 0 else None


def diagonal_direction(D: Tensor, g: Tensor, damping: float, curvature: str = "hessian") -> Tensor:
    """``g_i / (D_i + damping)``, or with ``|D_i|``, ``[d]``; infinite where the denominator is zero."""
    return g / ((D.abs() if curvature == "absolute" else D) + damping)


def spd_solve(H: Tensor, B: Tensor | None, scale: float, g: Tensor) -> Tensor | None:
    """``(H + scale B)^-1 g`` by Cholesky, ``B`` None for the identity; None where the matrix is not positive definite.

    A factorisation that fails says so: its factor is never used.
    """
    M = H.clone() if B is None else H + scale * B
    if B is None:
        M.diagonal().add_(scale)
    L, info = _linalg.cholesky_ex(M)
    if int(info) != 0:
        return None
    return torch.cholesky_solve(g[:, None], L)[:, 0]
