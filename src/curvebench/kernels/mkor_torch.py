"""MKOR's pieces in torch: rank-one vectors of a layer, the update of an inverse factor, the stabiliser, rescaling.

Shapes: inverse factors ``J [n, n]``, vectors ``v [n]``, a layer's gradient matrix ``W [o, i]`` whose last column
belongs to the bias, if it has one. Definitions: :mod:`curvebench.kernels.reference_kronecker`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from curvebench.kernels.kronecker_torch import Geometry, batched, padded

GAMMA = 0.95
"""Weight of the old inverse: a literal in the released code, whose ``stat_decay`` is never used."""
ZETA = 0.9
LIMIT = 2.0
"""The stabiliser acts when the largest absolute element exceeds this (the released code's epsilon)."""
RULES = ("code", "ema", "paper")


def working(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: half-precision factors are kept in half and updated in float32.

    In fp16, ``v' J v`` overflows at ``|v|^2`` near 1e5, after which the released code's update is silently nothing.
    """
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def mean_input(x: Tensor, geo: Geometry | None, bias: bool, clip: float, share: float) -> Tensor:
    """``share`` times the mean over a layer's rows of ``[x, 1]``, each element first clamped to ``+-clip``; ``[i]``.

    A row is a sample and position of a Linear; for a Conv2d it is a sample's patch, averaged over output positions.
    """
    if geo is None:
        rows = x.reshape(-1, x.shape[-1])
    else:
        (kh, kw), (sh, sw), (dh, dw) = geo.kernel, geo.stride, geo.dilation
        x = padded(batched(x, geo), geo)
        height, width = x.shape[2] - dh * (kh - 1), x.shape[3] - dw * (kw - 1)
        means = [x[:, :, i * dh : i * dh + height : sh, j * dw : j * dw + width : sw].mean((2, 3))
                 for i in range(kh) for j in range(kw)]  # fmt: skip
        rows = torch.stack(means, 2).flatten(1)
    mean = (rows * share).clamp_(-clip, clip).mean(0)
    return torch.cat([mean, mean.new_full((1,), min(share, clip))]) if bias else mean


def mean_gradient(g: Tensor, geo: Geometry | None, clip: float, scale: float) -> Tensor:
    """Mean over a layer's rows of ``scale`` times the output gradient, each element first clamped; ``[o]``."""
    rows = g.reshape(-1, g.shape[-1]) if geo is None else batched(g, geo).mean((2, 3))
    return (rows * scale).clamp_(-clip, clip).mean(0)


def rank_one(J: Tensor, v: Tensor, rule: str, gamma: float = GAMMA) -> Tensor:
    """The inverse factor after one vector, in the dtype of ``J``.

    ``code``: ``Q = gamma J + (1-gamma) I;  J <- Q - (Qv)(Qv)' / (1 + v'Qv)``, as all released code.
    ``ema``: the inverse of ``gamma J^-1 + (1-gamma) v v'``, which equation 5 was meant to be.
    ``paper``: equation 5 as printed, ``gamma J + (1-gamma) / (gamma^2 (1 + gamma (1-gamma) v'Jv)) (Jv)(Jv)'``, which
    diverges.
    """
    before, v = J.to(working(J.dtype)), v.to(working(J.dtype))
    # v = size * w with |w| <= 1: no product overflows, however long v is.
    size = v.abs().max().clamp_min(1.0)
    w = v / size
    u = before @ w
    if rule == "code":
        u = gamma * u + (1 - gamma) * w
        beta, factor = gamma, -1 / (size**-2 + w @ u)
    elif rule == "ema":
        share = (1 - gamma) / gamma
        beta, factor = 1 / gamma, -share / gamma / (size**-2 + share * (w @ u))
    else:
        beta, factor = gamma, (1 - gamma) / gamma**2 / (size**-2 + gamma * (1 - gamma) * (w @ u))
    after = torch.addr(before, u, factor * u, beta=beta)  # one pass over J: MKOR's claim is that this is cheap
    if rule == "code":
        after.diagonal().add_(1 - gamma)
    return after.to(J.dtype)


def blended(J: Tensor, zeta: float = ZETA, limit: float = LIMIT) -> Tensor:
    """The paper's stabiliser: ``zeta J + (1-zeta) I`` where the largest absolute element exceeds ``limit``."""
    mixed = zeta * J
    mixed.diagonal().add_(1 - zeta)
    return torch.where(J.abs().max() > limit, mixed, J)


def largest(x: Tensor) -> Tensor:
    """Largest absolute element ``[]`` in float32 or better, NaN if there is one; no copy of ``x`` is made."""
    low, high = torch.aminmax(x)
    return torch.maximum(-low, high).to(working(x.dtype))


def length_ratio(W: Tensor, U: Tensor, bias: bool) -> Tensor:
    """``(|dW| + |db|) / (|U_W| + |U_b|)`` ``[]``: what ``U`` is multiplied by to keep the gradient's length."""
    return _length(W, bias) / _length(U, bias)


def _length(M: Tensor, bias: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(M[:, :-1]) + torch.linalg.vector_norm(M[:, -1]) if bias else M.norm()
    return norm
