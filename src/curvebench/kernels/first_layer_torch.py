"""TrAct's gradient of a first layer, in torch (Petersen et al. 2024, arXiv 2410.23970).

``b`` rows (samples, or all positions of a convolution), ``n`` inputs, ``o`` outputs: ``x [b, n]``, ``dz [b, o]`` the
loss's gradient in the outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tract_gradient(x: Tensor, dz: Tensor, lam: float) -> Tensor | None:
    """``dz' x (x'x/b + lam I)^-1 [o, n]``; None where the matrix cannot be factorised.

    For ``b < n`` by the push-through identity: ``dz' (xx'/b + lam I)^-1 x``, a system of b unknowns.
    """
    b, n = x.shape
    small = b < n
    M = (x @ x.T if small else x.T @ x) / b
    M.diagonal().add_(lam)
    L, info = torch.linalg.cholesky_ex(M)
    if int(info) != 0:
        return None
    if small:
        return torch.cholesky_solve(dz, L).T @ x
    return torch.cholesky_solve(x.T @ dz, L).T
