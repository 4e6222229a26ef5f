"""Gradient estimators from losses alone, in float64 NumPy: slow, obviously right, the definition for the fast ones.

``f: [d] -> float``; ``x [d]``; ``u [q, d]`` directions, one a row; ``mu`` the smoothing radius.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Function = Callable[[Vector], float]


def random_gradient(
    f: Function, x: Vector, u: Vector, mu: float, *, central: bool = False, factor: float | Vector = 1.0
) -> Vector:
    """RGE: ``factor/q sum_i s_i u_i`` with the slope ``s_i`` of ``f`` along ``u_i``, ``[d]``.

    ``s_i = (f(x + mu u_i) - f(x)) / mu``, or central ``(f(x + mu u_i) - f(x - mu u_i)) / (2 mu)``.

    Args:
        f: the objective.
        x: where, ``[d]``.
        u: directions ``[q, d]``.
        mu: smoothing radius, > 0.
        central: two-sided differences.
        factor: 1 for Gaussian directions; what :func:`unit_directions` returns for unit ones.
    """
    total = np.zeros_like(x)
    for row in u:
        slope = (f(x + mu * row) - f(x - mu * row)) / (2 * mu) if central else (f(x + mu * row) - f(x)) / mu
        total += slope * row
    return np.asarray(factor * total / len(u))


def unit_directions(z: Vector, sizes: Sequence[int] | None = None) -> tuple[Vector, Vector]:
    """Gaussian rows ``z [q, d]`` put on the unit sphere, and the factor ``[d]`` that makes the estimate unbiased.

    ``E[u u'] = I/d`` on the sphere of dimension d, so the factor is d; normalised in blocks (``sizes``, one tensor a
    block) it is the block's size, since different blocks are uncorrelated.
    """
    u, factor, start = z.copy(), np.empty(z.shape[1]), 0
    for size in [z.shape[1]] if sizes is None else sizes:
        block = slice(start, start + size)
        u[:, block] /= np.linalg.norm(u[:, block], axis=1, keepdims=True)
        factor[block] = size
        start += size
    return u, factor


def coordinate_gradient(
    f: Function, x: Vector, mu: float, *, central: bool = False, mask: npt.NDArray[np.bool_] | None = None
) -> Vector:
    """CGE: ``g_i = (f(x + mu e_i) - f(x)) / mu`` on the coordinates of ``mask`` (default all), 0 elsewhere, ``[d]``.

    Central: ``g_i = (f(x + mu e_i) - f(x - mu e_i)) / (2 mu)``.
    """
    g = np.zeros_like(x)
    for i in range(len(x)):
        if mask is not None and not mask[i]:
            continue
        e = np.zeros_like(x)
        e[i] = mu
        g[i] = (f(x + e) - f(x - e)) / (2 * mu) if central else (f(x + e) - f(x)) / mu
    return g


def project(g: Vector, basis: Vector, *, out: bool = False) -> Vector:
    """``E' E g``, the part of ``g`` in the span of the orthonormal rows of ``basis E [k, d]``; ``out``: the rest."""
    inside = basis.T @ (basis @ g)
    return np.asarray(g - inside if out else inside)


def second_moment(squared_norm: float, d: int, q: int, law: str) -> float:
    """``E ||g||^2`` of the RGE of a linear function with squared gradient norm ``squared_norm``.

    ``gaussian``: ``(1 + (d+1)/q) ||grad||^2``; ``sphere``: ``(d+q-1)/q ||grad||^2`` (Malladi et al. 2023, Lemma 2).
    """
    return squared_norm * {"gaussian": 1 + (d + 1) / q, "sphere": (d + q - 1) / q}[law]
