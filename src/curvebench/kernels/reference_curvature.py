"""Float64 NumPy definitions of curvature products, traces, diagonals and spectra: slow, and obviously right.

``f: [d] -> float`` the objective, ``x [d]`` where; ``H [d, d]`` symmetric; ``Z [n, d]`` probes, one a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def gradient(f: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    """Central differences, ``[d]``: error O(step^2)."""
    return np.array([(f(x + e) - f(x - e)) / (2 * step) for e in step * np.eye(len(x))])


def jacobian(outputs: Callable[[Array], Array], x: Array, step: float = 1e-5) -> Array:
    """``J [n, d]`` of ``outputs: [d] -> [n]`` by central differences: error O(step^2)."""
    return np.stack([(outputs(x + e) - outputs(x - e)) / (2 * step) for e in step * np.eye(len(x))], axis=1)


def hessian(f: Callable[[Array], float], x: Array, step: float = 1e-4) -> Array:
    """Central second differences, ``[d, d]``: error O(step^2)."""
    steps, H = step * np.eye(len(x)), np.empty((len(x), len(x)))
    for i, a in enumerate(steps):
        for j, b in enumerate(steps):
            H[i, j] = (f(x + a + b) - f(x + a - b) - f(x - a + b) + f(x - a - b)) / (4 * step**2)
    return H


def gauss_newton(outputs: Callable[[Array], Array], criterion: Callable[[Array], float], x: Array) -> Array:
    """``J' H_out J [d, d]`` of ``criterion(outputs(x))``."""
    J = jacobian(outputs, x)
    return np.asarray(J.T @ hessian(criterion, outputs(x)) @ J)


def hutchinson_diagonal(H: Array, Z: Array) -> tuple[Array, Array]:
    """``mean_n z_n * (H z_n)`` and its standard error, ``[d]`` each."""
    draws = np.stack([z * (H @ z) for z in Z])
    return draws.mean(0), draws.std(0, ddof=1) / np.sqrt(len(Z))


def hutchinson_trace(H: Array, Z: Array) -> tuple[float, float]:
    """``mean_n z_n' H z_n`` and its standard error."""
    draws = np.array([z @ H @ z for z in Z])
    return float(draws.mean()), float(draws.std(ddof=1) / np.sqrt(len(Z)))


def hutchinson_block_traces(H: Array, Z: Array, sizes: Sequence[int]) -> Array:
    """``mean_n z_nb' (H z_n)_b`` for every block b of consecutive elements, ``[blocks]``."""
    ends = np.cumsum(sizes)
    draws = [
        [z[end - size : end] @ (H @ z)[end - size : end] for size, end in zip(sizes, ends, strict=True)] for z in Z
    ]
    return np.asarray(np.mean(draws, axis=0))


def block_trace_variance(H: Array, sizes: Sequence[int]) -> Array:
    """Variance ``[blocks]`` for a Rademacher probe: ``2 sum_{i != j} H_ij^2`` inside, ``sum H_ij^2`` to the outside."""
    found, start = [], 0
    for size in sizes:
        rows = H[start : start + size]
        inside = rows[:, start : start + size]
        found.append(2 * ((inside**2).sum() - (np.diag(inside) ** 2).sum()) + (rows**2).sum() - (inside**2).sum())
        start += size
    return np.array(found)


def diagonal_variance(H: Array, law: str) -> Array:
    """Variance ``[d]`` of ``z * (H z)`` for one probe.

    ``sum_{j != i} H_ij^2`` (``rademacher``), and ``2 H_ii^2`` more (``normal``).
    """
    own = np.diag(H) ** 2
    return np.asarray((H**2).sum(1) - own + {"rademacher": 0, "normal": 2}[law] * own)


def trace_variance(H: Array, law: str) -> float:
    """Variance of ``z'Hz`` for one probe: ``2 sum_{i != j} H_ij^2`` (``rademacher``), ``2 ||H||_F^2`` (``normal``)."""
    return float(2 * ((H**2).sum() - {"rademacher": 1, "normal": 0}[law] * (np.diag(H) ** 2).sum()))


def hutchpp_trace(H: Array, S: Array, Z: Array) -> float:
    """``tr(Q'HQ) + mean_n y_n' H y_n`` with ``y = (I - QQ') z`` and ``Q`` the orthonormalised columns of ``H S'``."""
    Q = np.linalg.qr(H @ S.T)[0]
    Y = Z - Z @ Q @ Q.T
    return float(np.trace(Q.T @ H @ Q) + np.mean([y @ H @ y for y in Y]))


def lanczos(H: Array, v: Array, k: int) -> Array:
    """``T [k, k] = Q H Q'``: rows ``Q`` are ``v, Hv, HHv, ...``, each orthonormalised against all before it."""
    Q = np.empty((k, len(v)))
    for j in range(k):
        w = v if j == 0 else H @ Q[j - 1]
        for _ in range(3):
            w = w - Q[:j].T @ (Q[:j] @ w)
        Q[j] = w / np.linalg.norm(w)
    return np.asarray(Q @ H @ Q.T)


def spectral_moment(H: Array, V: Array, k: int) -> float:
    """``mean_n v_n' H^k v_n / |v_n|^2``, whose expectation over isotropic ``v`` is ``tr(H^k) / d``."""
    power = np.linalg.matrix_power(H, k)
    return float(np.mean([v @ power @ v / (v @ v) for v in V]))


def density(eigenvalues: Array, grid: Array, width: float) -> Array:
    """The spectral density at ``grid [n]`` with every delta of the exact spectrum a Gaussian of that width."""
    bumps = np.exp(-((grid[:, None] - eigenvalues) ** 2) / (2 * width**2)) / (width * np.sqrt(2 * np.pi))
    return np.asarray(bumps.mean(1))
