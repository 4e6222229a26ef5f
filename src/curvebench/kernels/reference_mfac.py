"""M-FAC in float64 NumPy, slow and obviously right: what the fast kernels are compared with.

``m`` gradients as the rows of ``G [m, d]``; ``F = damping I + (1/m) G'G``, divisor ``m`` also while rows are zero
(Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356). Everything that returns ``F^-1 x`` takes and returns ``[d]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def fisher(G: Array, damping: float, block: int | None = None) -> Array:
    """``F [d, d]``; with ``block``, zero outside the contiguous diagonal blocks of that size (the last one shorter)."""
    m, d = G.shape
    F: Array = damping * np.eye(d) + G.T @ G / m
    if block is not None:
        number = np.arange(d) // block
        F = np.where(number[:, None] == number[None, :], F, 0.0)
    return F


def inverse(G: Array, damping: float, block: int | None = None) -> Array:
    """``F^-1 [d, d]``, dense."""
    return np.asarray(np.linalg.inv(fisher(G, damping, block)))


# -- static: Sherman-Morrison, one gradient after the other ------------------------------------------------------


def recursion(G: Array, damping: float) -> tuple[Array, Array]:
    """``V[k] = F_k^-1 g_k [m, d]`` and ``delta[k] = m + g_k'V[k] [m]``, with ``F_k`` made of the rows before ``k``."""
    m, _ = G.shape
    V, delta = np.zeros_like(G), np.zeros(m)
    for k in range(m):
        V[k] = G[k] / damping
        for i in range(k):
            V[k] -= (V[i] @ G[k]) / delta[i] * V[i]
        delta[k] = m + G[k] @ V[k]
    return V, delta


def recursion_product(V: Array, delta: Array, damping: float, x: Array) -> Array:
    """``F^-1 x`` from :func:`recursion`."""
    return np.asarray(x / damping - ((V @ x) / delta) @ V)


def recursion_diagonal(V: Array, delta: Array, damping: float) -> Array:
    """The diagonal of ``F^-1 [d]`` from :func:`recursion`."""
    return np.asarray(1 / damping - (V**2 / delta[:, None]).sum(0))


def recursion_element(V: Array, delta: Array, damping: float, i: int, j: int) -> float:
    """``[F^-1]_ij`` from :func:`recursion`, in O(m)."""
    return float((i == j) / damping - (V[:, i] * V[:, j] / delta).sum())


# -- dynamic: coefficients in the span of the window -------------------------------------------------------------


def woodbury(G: Array, damping: float, x: Array) -> Array:
    """``(x - G' (m damping I + G G')^-1 G x) / damping``."""
    m = len(G)
    return np.asarray((x - G.T @ np.linalg.solve(m * damping * np.eye(m) + G @ G.T, G @ x)) / damping)


def in_span(G: Array, damping: float, row: int) -> Array:
    """``F^-1 g_row = m G' (m damping I + G G')^-1 e_row``: nothing cancels."""
    m = len(G)
    return np.asarray(m * G.T @ np.linalg.solve(m * damping * np.eye(m) + G @ G.T, np.eye(m)[row]))


def coefficients(S: Array, damping: float) -> tuple[Array, Array]:
    """The authors' ``D`` (upper, ``D_ij = g_i'F_i^-1 g_j``) and ``B`` (lower, ``V_i = sum_j B_ij g_j``) ``[m, m]``."""
    m = len(S)
    D, B = np.zeros((m, m)), np.zeros((m, m))
    for i in range(m):
        for j in range(i, m):
            D[i, j] = S[i, j] / damping - sum(D[k, i] * D[k, j] / (m + D[k, k]) for k in range(i))
        B[i, i] = 1 / damping
        for k in range(i):
            B[i, :i] -= D[k, i] / (m + D[k, k]) * B[k, :i]
    return D, B


def official(G: Array, damping: float, x: Array) -> Array:
    """``F^-1 x`` by the authors' ``D`` and ``B``."""
    m = len(G)
    D, B = coefficients(G @ G.T, damping)
    delta = m + np.diag(D)
    p = G @ x / damping
    for k in range(m):
        for i in range(k):
            p[k] -= D[i, k] / delta[i] * p[i]
    return np.asarray(x / damping - G.T @ ((p / delta) @ B))


def train(
    start: Array,
    gradients: Sequence[Array] | Array,
    window: int,
    damping: float,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    sparse: bool = False,
) -> Array:
    """Parameters ``[T + 1, d]`` of the optimiser that sees ``gradients [T, d]``, by dense solves.

    ``g = grad + weight_decay p`` goes into the window; ``v = momentum v + (1 - momentum) F^-1 g``; ``p -= lr v``. With
    ``sparse``, entries that are zero at the start stay so and leave the window.
    """
    p = np.array(start, dtype=np.float64)
    live = p != 0 if sparse else np.ones(len(p), dtype=bool)
    G, v, path = np.zeros((window, int(live.sum()))), np.zeros(int(live.sum())), [p.copy()]
    for t, gradient in enumerate(gradients):
        g = (gradient + weight_decay * p)[live]
        G[t % window] = g
        v = momentum * v + (1 - momentum) * np.linalg.solve(fisher(G, damping), g)
        p[live] -= lr * v
        path.append(p.copy())
    return np.array(path)


# -- pruning -----------------------------------------------------------------------------------------------------


def obs_scores(w: Array, diagonal: Array) -> Array:
    """``w_p^2 / (2 [F^-1]_pp)``: the increase of the quadratic model when weight ``p`` alone is removed."""
    return np.asarray(w**2 / (2 * diagonal))


def obs_update(inverse_: Array, w: Array, drop: Sequence[int] | npt.NDArray[np.int64]) -> Array:
    """The sum of the single-weight updates ``-w_p/[F^-1]_pp F^-1 e_p`` over ``drop``, then zero there."""
    out = w.copy()
    for p in drop:
        out = out - w[p] / inverse_[p, p] * inverse_[:, p]
    out[np.asarray(drop)] = 0.0
    return np.asarray(out)


def obs_joint_update(inverse_: Array, w: Array, drop: Sequence[int] | npt.NDArray[np.int64]) -> Array:
    """The minimiser of the quadratic model around ``w`` among the vectors that are zero at ``drop``."""
    chosen = np.asarray(drop)
    out = w - inverse_[:, chosen] @ np.linalg.solve(inverse_[np.ix_(chosen, chosen)], w[chosen])
    out[chosen] = 0.0
    return np.asarray(out)
