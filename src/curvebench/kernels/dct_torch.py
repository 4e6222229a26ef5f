"""Low-rank projections by columns of the orthogonal DCT-II basis, in torch (arXiv 2505.17967).

Shapes: ``G [rows, cols]`` with ``rows >= cols = n`` (a wide matrix is transposed first); ``Q [n, n]`` the basis,
``idx [r]`` its chosen columns; ``G Q[:, idx] [rows, r]`` the projected gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dct_basis(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``Q [n, n]``, orthogonal: column i is ``sqrt(2/n) cos(i (2j + 1) pi / 2n)``, column 0 divided by ``sqrt 2``."""
    j = torch.arange(n, dtype=torch.float64, device=device)
    Q = torch.cos(torch.outer(2 * j + 1, j) * (math.pi / (2 * n))) * math.sqrt(2 / n)
    Q[:, 0] /= math.sqrt(2)
    return Q.to(dtype)


def select(S: Tensor, r: int) -> Tensor:
    """Indices ``[r]``, ascending, of the columns of ``S [rows, n]`` with the largest sums of absolute values."""
    return S.abs().sum(0).topk(r).indices.sort().values


def carried(moment: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """A moment ``[rows, r]`` in the new columns: ``moment Q[:, before]' Q[:, now]``.

    The columns of Q are orthonormal, so that product keeps the columns chosen both times and is zero in the others.

    Args:
        moment: in the columns ``before``.
        before: ``[r]``, ascending.
        now: ``[r]``, ascending.
    """
    same = before[:, None] == now[None, :]
    return moment @ same.to(moment.dtype)
