"""MKOR's pieces in torch: rank-one vectors of a layer, the update of an inverse factor, the stabiliser, rescaling.

Shapes: inverse factors ``J [n, n]``, vectors ``v [n]``, a layer's gradient matrix ``W [o, i]`` whose last column
belongs to the bias, if it has one. Definitions: :mod:`curvebench.kernels.reference_kronecker`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from curvebench.kernels.geometry import Geometry
from curvebench.kernels.kronecker_torch import batched, padded

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


class Step(NamedTuple):
    """One update of an inverse factor: ``J <- scale J + shift I + weight u u'``; ``u [n]``, ``weight []``."""

    scale: float
    shift: float
    u: Tensor
    weight: Tensor


def rank_one_step(J: Tensor, v: Tensor, rule: str, gamma: float = GAMMA, zeta: float = 1.0) -> Step:
    """What one vector does to the inverse factor ``zeta J + (1-zeta) I`` (the stabiliser's, where ``zeta < 1``).

    ``code``: ``Q = gamma J + (1-gamma) I;  J <- Q - (Qv)(Qv)' / (1 + v'Qv)``, as all released code.
    ``ema``: the inverse of ``gamma J^-1 + (1-gamma) v v'``, which equation 5 was meant to be.
    ``paper``: equation 5 as printed, ``gamma J + (1-gamma) / (gamma^2 (1 + gamma (1-gamma) v'Jv)) (Jv)(Jv)'``, which
    diverges.
    """
    dtype = working(J.dtype)
    v = v.to(dtype)
    # v = size * w with |w| <= 1: no product overflows, however long v is.
    size = v.abs().max().clamp_min(1.0)
    w = v / size
    u = (J.to(dtype) @ w).mul_(zeta)
    if zeta < 1:
        u.add_(w, alpha=1 - zeta)
    if rule == "code":
        u.mul_(gamma).add_(w, alpha=1 - gamma)
        return Step(gamma * zeta, gamma * (1 - zeta) + 1 - gamma, u, -1 / (size**-2 + w @ u))
    if rule == "ema":
        share = (1 - gamma) / gamma
        return Step(zeta / gamma, (1 - zeta) / gamma, u, -share / gamma / (size**-2 + share * (w @ u)))
    weight = (1 - gamma) / gamma**2 / (size**-2 + gamma * (1 - gamma) * (w @ u))
    return Step(gamma * zeta, gamma * (1 - zeta), u, weight)


def diagonal_after(J: Tensor, step: Step) -> Tensor:
    """The diagonal ``[n]`` that ``J`` will have. ``J`` is positive definite: no element is larger than its largest."""
    return step.weight * step.u.square() + (step.scale * J.diagonal().to(step.u.dtype) + step.shift)


def update_(J: Tensor, step: Step) -> Tensor:
    """Carry the step out in place, in one pass over ``J`` (MKOR's claim is that this is cheap), and return it."""
    after = J.to(step.u.dtype)  # J itself unless it is kept in half precision
    after.addr_(step.u, step.weight * step.u, beta=step.scale)
    after.diagonal().add_(step.shift)
    return J if after is J else J.copy_(after)


def rank_one(J: Tensor, v: Tensor, rule: str, gamma: float = GAMMA) -> Tensor:
    """The inverse factor after one vector, as a new tensor in the dtype of ``J``; rules as :func:`rank_one_step`."""
    return update_(J.clone(), rank_one_step(J, v, rule, gamma))


def blended(J: Tensor, zeta: float = ZETA, limit: float = LIMIT) -> Tensor:
    """The paper's stabiliser: ``zeta J + (1-zeta) I`` where the largest absolute element exceeds ``limit``."""
    mixed = zeta * J
    mixed.diagonal().add_(1 - zeta)
    return torch.where(largest(J) > limit, mixed, J)


def largest(J: Tensor) -> Tensor:
    """Largest absolute element ``[]`` of a positive definite ``J``, which lies on its diagonal; NaN if one is there."""
    return J.diagonal().to(working(J.dtype)).abs().max()


def preconditioned(JG: Tensor, JA: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """``JG [dW, db] JA`` without ever building ``[dW, db]``; ``weight [o, n]``, ``bias [o]``.

    The bias' column makes matrices of width n + 1, whose products cost up to half as much again as those of width n.
    """
    n = weight.shape[1]
    left = JG @ weight
    out = left @ JA[:n, :n]
    if bias is None:
        return out, None
    column = JG @ bias
    out.addr_(column, JA[n, :n])
    return out, torch.mv(left, JA[:n, n]).add_(column * JA[n, n])


NORMS = ("sum", "joint")


def length(weight: Tensor, bias: Tensor | None, norm: str = "sum") -> Tensor:
    """``|dW| + |db|`` (``sum``, as the released code) or ``|[dW, db]|`` (``joint``, as the paper); ``[]``."""
    size: Tensor = torch.linalg.vector_norm(weight)
    if bias is None:
        return size
    other = torch.linalg.vector_norm(bias)
    return size + other if norm == "sum" else torch.hypot(size, other)
