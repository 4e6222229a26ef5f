"""Linear conjugate gradients for ``A x = b`` from products with A, stopped by relative progress, in torch.

Shapes: ``b, x [d]``. ``phi(x) = x'Ax/2 - b'x`` is what the iterations decrease.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SPACING = 1.3
"""Iterates are kept at iterations ``ceil(1.3^j)`` (Martens 2010, section 4.6)."""


class Solution(NamedTuple):
    """What conjugate gradients found.

    ``kept``: some of the iterates, the last one last; ``phi``: the function that they decrease, there;
    ``products``: how many with A; ``status``: ``'progress'``, ``'steps'``, ``'exact'``, ``'negative'`` (curvature) or
    ``'broken'`` (not finite).
    """

    kept: list[Tensor]
    phi: list[float]
    products: int
    status: str


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, x: Tensor, *, steps: int, tolerance: float
) -> Solution:
    """Hestenes and Stiefel's iteration from ``x``, at most ``steps`` of them.

    Stops at iteration i when ``phi < 0`` and the last ``k = max(10, i/10)`` iterations gained less than the fraction
    ``k tolerance`` of it (Martens 2010, section 4.4), or when the residual is zero to rounding.

    Args:
        product: ``v -> A v``.
        b: the right-hand side.
        x: where to start; not changed.
        steps: >= 1.
        tolerance: >= 0; 0 runs all steps.
    """
    started = bool(x.any())
    r = b - product(x) if started else b.clone()
    products, x, p, rr = int(started), x.clone(), r.clone(), float(r @ r)
    smallest = (torch.finfo(b.dtype).eps * float(b.norm())) ** 2
    phis, status = [-0.5 * float(x @ (b + r))], "steps"
    kept: list[Tensor] = []
    phi: list[float] = []
    keep_at = 1
    for i in range(1, steps + 1):
        if rr <= smallest:
            status = "exact"
            break
        Ap = product(p)
        products += 1
        curvature = float(p @ Ap)
        if not math.isfinite(curvature):
            return Solution([*kept, x], [*phi, phis[-1]], products, "broken")
        if curvature <= 0:
            status = "negative"
            break
        x.add_(p, alpha=rr / curvature)
        r.sub_(Ap, alpha=rr / curvature)
        new = float(r @ r)
        p.mul_(new / rr).add_(r)
        rr = new
        phis.append(-0.5 * float(x @ (b + r)))
        if i >= keep_at:
            kept.append(x.clone())
            phi.append(phis[-1])
            keep_at = max(i + 1, math.ceil(keep_at * SPACING))
        k = max(10, i // 10)
        if i > k and phis[i] < 0 and (phis[i] - phis[i - k]) / phis[i] < k * tolerance:
            status = "progress"
            break
    if not kept or not torch.equal(kept[-1], x):
        kept.append(x)
        phi.append(phis[-1])
    return Solution(kept, phi, products, status)
