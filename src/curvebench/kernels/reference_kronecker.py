"""Float64 NumPy definitions of the Kronecker-factored quantities: slow, and obviously right.

Shapes: ``N`` samples, ``T`` positions of a sample (1 without weight sharing), ``i`` inputs and ``o`` outputs of a
layer, ``i`` counting the homogeneous coordinate of a bias as its last. ``a [N, T, i]`` layer inputs, ``g [N, T, o]``
gradients of each sample's loss in the layer's outputs. A layer's gradient matrix is ``W [o, i]``; vec stacks its rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def rows(x: Array, bias: bool) -> Array:
    """Inputs ``[N, ..., n]`` of a linear layer as ``a [N, T, n (+ 1)]``."""
    flat = x.reshape(len(x), -1, x.shape[-1])
    return np.concatenate([flat, np.ones((*flat.shape[:2], 1))], axis=2) if bias else flat


def patches(
    x: Array,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    bias: bool = False,
) -> Array:
    """Inputs ``[N, c, h, w]`` of a convolution as ``a [N, T, c kh kw (+ 1)]``, one row for each output position."""
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    height, width = ((x.shape[2 + k] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1 for k in (0, 1))
    found = np.zeros((len(x), height * width, x.shape[1] * kernel[0] * kernel[1]))
    for row in range(height):
        for column in range(width):
            top, left = row * stride[0], column * stride[1]
            window = x[:, :, top : top + dilation[0] * (kernel[0] - 1) + 1 : dilation[0],
                       left : left + dilation[1] * (kernel[1] - 1) + 1 : dilation[1]]  # fmt: skip
            found[:, row * width + column] = window.reshape(len(x), -1)
    return rows(found, bias)


def output_rows(g: Array) -> Array:
    """Output gradients ``[N, o, h, w]`` of a convolution as ``g [N, T, o]``."""
    return g.reshape(*g.shape[:2], -1).transpose(0, 2, 1)


def input_factor(a: Array) -> Array:
    """``A = sum_nt a a' / (N T)``, ``[i, i]``."""
    flat = a.reshape(-1, a.shape[-1])
    return flat.T @ flat / len(flat)


def gradient_factor(g: Array) -> Array:
    """``G = sum_nt g g' / N``, ``[o, o]``: with it, ``G kron A`` is the layer's block if the rows are independent."""
    flat = g.reshape(-1, g.shape[-1])
    return flat.T @ flat / len(g)


def library_factors(a: Array, gout: Array) -> tuple[Array, Array]:
    """The factors ``A``, ``G`` of kfac-pytorch, from gradients ``gout`` of the mean loss.

    For convolutions (``T > 1`` positions) pass :func:`patches` and divide ``a`` and ``gout`` by ``T`` first.
    """
    flat_a, flat_g = a.reshape(-1, a.shape[-1]), gout.reshape(-1, gout.shape[-1])
    return flat_a.T @ flat_a / len(flat_a), flat_g.T @ flat_g / len(flat_g)


def sample_gradients(a: Array, g: Array) -> Array:
    """``W_n = sum_t g a'``, ``[N, o, i]``."""
    return np.asarray(np.einsum("nto,nti->noi", g, a))


def fisher_block(a: Array, g: Array) -> Array:
    """``sum_n vec(W_n) vec(W_n)' / N``, ``[o i, o i]``: the block that ``G kron A`` approximates."""
    flat = sample_gradients(a, g).reshape(len(a), -1)
    return flat.T @ flat / len(flat)


def ema(average: Array | None, weight: float, new: Array, decay: float) -> tuple[Array, float]:
    """``sum_k decay^k X_k / sum_k decay^k`` and its denominator: no start value enters."""
    total = decay * weight + 1
    return (new if average is None else average + (new - average) / total), total


def pi(A: Array, G: Array) -> float:
    """``sqrt((tr A / dim A) / (tr G / dim G))`` (Martens and Grosse 2015, section 6.3); 1 where a trace is 0."""
    a, g = np.trace(A) / len(A), np.trace(G) / len(G)
    return float(np.sqrt(a / g)) if a > 0 and g > 0 else 1.0


def solve(A: Array, G: Array, W: Array, damping: float) -> Array:
    """``(G kron A + damping I)^-1 vec W``, by the dense inverse."""
    dense = np.kron(G, A) + damping * np.eye(len(A) * len(G))
    return np.asarray(np.linalg.solve(dense, W.reshape(-1)).reshape(W.shape), np.float64)


def solve_factored(A: Array, G: Array, W: Array, damping_a: float, damping_g: float) -> Array:
    """``(G + damping_g I)^-1 W (A + damping_a I)^-1``."""
    left = np.linalg.solve(G + damping_g * np.eye(len(G)), W)
    return np.asarray(np.linalg.solve(A + damping_a * np.eye(len(A)), left.T).T)


def scaling(a: Array, g: Array, QA: Array, QG: Array) -> Array:
    """EKFAC's ``S [o, i]``: ``sum_n (QG' W_n QA)^2 / N``; its sum is the trace of :func:`fisher_block`."""
    return np.asarray(np.square(QG.T @ sample_gradients(a, g) @ QA).mean(0))


def columns(outputs: Array, likelihood: str) -> Array:
    """``[C, rows, C]``: columns ``s_c`` with ``sum_c s_c s_c'`` the Hessian of one row's negative log-likelihood."""
    n, c = outputs.shape
    if likelihood == "gaussian":
        return np.broadcast_to(np.eye(c)[:, None, :], (c, n, c)).copy()
    e = np.exp(outputs - outputs.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return np.stack([np.sqrt(p[:, [k]]) * (np.eye(c)[k] - p) for k in range(c)])


def rank_one(J: Array, v: Array, rule: str, gamma: float = 0.95) -> Array:
    """MKOR's update of the inverse factor ``J [n, n]`` with the vector ``v [n]``.

    ``code``: the inverse of ``(gamma J + (1 - gamma) I)^-1 + v v'`` (all released code); ``ema``: the inverse of
    ``gamma J^-1 + (1 - gamma) v v'``; ``paper``: equation 5 as printed, which is no inverse.
    """
    if rule == "code":
        return _inverse(_inverse(gamma * J + (1 - gamma) * np.eye(len(J))) + np.outer(v, v))
    if rule == "ema":
        return _inverse(gamma * _inverse(J) + (1 - gamma) * np.outer(v, v))
    u = J @ v
    return gamma * J + (1 - gamma) / (gamma**2 * (1 + gamma * (1 - gamma) * v @ u)) * np.outer(u, u)


def _inverse(X: Array) -> Array:
    return np.asarray(np.linalg.inv(X), np.float64)


def rescaled(W: Array, U: Array, bias: bool) -> Array:
    """``U`` times ``(|dW| + |db|) / (|U_W| + |U_b|)``; the last column belongs to the bias."""

    def size(M: Array) -> float:
        return float(np.linalg.norm(M[:, :-1]) + np.linalg.norm(M[:, -1])) if bias else float(np.linalg.norm(M))

    return U * (size(W) / size(U))
