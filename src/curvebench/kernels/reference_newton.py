"""Steps of second-order methods in float64 NumPy: slow, obviously right, the definition for the fast ones.

``x [d]``; ``g [d]`` the gradient; ``H [d, d]`` a symmetric curvature matrix; ``f: [d] -> float``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


def newton_direction(H: Matrix, g: Vector, damping: float = 0.0, *, absolute: bool = False) -> Vector:
    """``(H + damping I)^-1 g``; ``absolute``: with the absolute values of H's eigenvalues."""
    if absolute:
        values, vectors = np.linalg.eigh(H)
        H = vectors @ np.diag(np.abs(values)) @ vectors.T
    return np.asarray(np.linalg.inv(H + damping * np.eye(len(g))) @ g)


def levenberg_marquardt(
    x: Vector,
    f: Callable[[Vector], float],
    g: Vector,
    G: Matrix,
    damping: float,
    growth: float,
    *,
    tries: int,
    diagonal: bool = False,
) -> tuple[Vector, float, float]:
    """One step with Nielsen's rule: the new ``(x, damping, growth)``.

    ``h = -(G + damping D)^-1 g``, ``rho = (f(x) - f(x + h)) / -(g'h + h'Gh/2)``. ``rho > 0``: take it,
    ``damping *= max(1/3, 1 - (2 rho - 1)^3)``, ``growth = 2``. Else ``damping *= growth``, ``growth *= 2``, again.
    """
    D = np.diag(np.diag(G)) if diagonal else np.eye(len(x))
    for _ in range(tries):
        h = -np.linalg.solve(G + damping * D, g)
        rho = (f(x) - f(x + h)) / -(g @ h + h @ G @ h / 2)
        if rho > 0:
            return x + h, damping * max(1 / 3, float(1 - (2 * rho - 1) ** 3)), 2.0
        damping, growth = damping * growth, growth * 2
    return x, damping, growth


def conjugate_gradient(A: Matrix, b: Vector, steps: int) -> Vector:
    """``steps`` iterations of linear conjugate gradients for ``A x = b`` from zero (Hestenes and Stiefel)."""
    x = np.zeros_like(b)
    r = b.copy()
    p = r.copy()
    for _ in range(steps):
        if not r.any():
            break
        alpha = (r @ r) / (p @ A @ p)
        x = x + alpha * p
        new = r - alpha * (A @ p)
        p = new + (new @ new) / (r @ r) * p
        r = new
    return x


def gns_step(
    x: Vector,
    f: Callable[[Vector], float],
    gradient: Callable[[Vector], Vector],
    H: Matrix,
    gamma: float,
    *,
    B: Matrix | None = None,
    tries: int = 40,
) -> tuple[Vector, float]:
    """One step of gradient-normalised smoothness: the new ``(x, gamma)``; x unchanged if no try is accepted.

    ``lambda = ||g||_* / gamma``; ``y = x - (H + lambda B)^-1 g``, accepted if the matrix is positive definite and
    ``f(x) - f(y) >= ||grad f(y)||_*^2 / (8 lambda)``: then ``gamma <- 2 gamma``, else ``gamma <- gamma / 2``.
    """
    metric = np.eye(len(x)) if B is None else B
    g = gradient(x)

    def squared(v: Vector) -> float:
        return float(v @ np.linalg.solve(metric, v))

    for _ in range(tries):
        scale = np.sqrt(squared(g)) / gamma
        M = H + scale * metric
        if np.linalg.eigvalsh(M).min() > 0:
            y = x - np.linalg.solve(M, g)
            if f(x) - f(y) >= squared(gradient(y)) / (8 * scale):
                return y, 2 * gamma
        gamma /= 2
    return x, gamma
