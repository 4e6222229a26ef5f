"""Transformed gradients and losses in float64 NumPy: slow, obviously right, the definition for the fast ones.

``g, w``: a gradient and its weights; ``x [b, n]``, ``dz [b, o]``: a layer's inputs and output gradients, a row each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def stablemax_cross_entropy(logits: Array, targets: npt.NDArray[np.int64]) -> float:
    """``mean -log p_y``, ``p = s / sum s``, ``s(z) = z + 1`` for ``z >= 0`` and ``1 / (1 - z)`` below."""
    total = 0.0
    for z, y in zip(logits, targets, strict=True):
        s = np.array([v + 1 if v >= 0 else 1 / (1 - v) for v in z])
        total -= np.log(s[y] / s.sum())
    return float(total / len(targets))


def orthogonal_gradient(w: Array, g: Array, *, rescale: bool = False) -> Array:
    """``g - (w'g / w'w) w``; ``rescale``: stretched to the length of g."""
    part = g - np.vdot(w, g) / np.vdot(w, w) * w
    return np.asarray(part * np.linalg.norm(g) / np.linalg.norm(part) if rescale else part)


def tract_gradient(x: Array, dz: Array, lam: float) -> Array:
    """``dz' x (x'x/b + lam I)^-1`` ``[o, n]``, the inverse formed."""
    b, n = x.shape
    return np.asarray(dz.T @ x @ np.linalg.inv(x.T @ x / b + lam * np.eye(n)))


def eva_direction(W: Array, a: Array, g: Array, damping: float) -> Array:
    """``(gg' kron aa' + damping I)^-1`` on ``W [o, i]``, the matrix formed; ``a [i]``, ``g [o]``."""
    C = np.kron(np.outer(g, g), np.outer(a, a)) + damping * np.eye(W.size)
    return np.asarray((np.linalg.inv(C) @ W.reshape(-1)).reshape(W.shape))


def dct_basis(n: int) -> Array:
    """``Q [n, n]``: entry (j, i) is ``sqrt(2/n) cos(i (2j + 1) pi / 2n)``, over ``sqrt 2`` for ``i = 0``."""
    Q = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            Q[j, i] = np.sqrt(2 / n) * np.cos(i * (2 * j + 1) * np.pi / (2 * n)) * (np.sqrt(0.5) if i == 0 else 1)
    return Q


def dct_adamw(
    w: Array,
    gradients: list[Array],
    *,
    rank: int,
    every: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    rotate: bool = True,
    feedback: bool = False,
) -> Array:
    """AdamW on ``G Q[:, idx]`` for a sequence of gradients ``G`` of ``w [rows, cols]``, ``rows >= cols``: the last w.

    Every so many steps the ``rank`` columns of ``GQ`` with the largest l1 norm are chosen, and the moments are turned
    by ``R = Q_old' Q_new``: ``m R``, ``|v R|``. ``feedback``: what the projection loses is added to the next gradient.
    """
    Q, (b1, b2) = dct_basis(w.shape[1]), betas
    lost = np.zeros_like(w)
    basis = np.zeros((w.shape[1], rank))
    m = v = np.zeros((w.shape[0], rank))
    for t, gradient in enumerate(gradients, start=1):
        G = gradient + lost if feedback else gradient
        if (t - 1) % every == 0:
            norms = np.abs(G @ Q).sum(0)
            new = Q[:, np.sort(np.argsort(-norms)[:rank])]
            if rotate and t > 1:
                R = basis.T @ new
                m, v = m @ R, np.abs(v @ R)
            basis = new
        a = G @ basis
        lost = G - a @ basis.T
        m, v = b1 * m + (1 - b1) * a, b2 * v + (1 - b2) * a**2
        u = m / (np.sqrt(v) + eps * np.sqrt(1 - b2**t))
        w = w * (1 - lr * weight_decay) - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * u @ basis.T
    return w
