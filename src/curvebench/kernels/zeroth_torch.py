"""Gradient estimators from losses alone, in place on live torch parameters.

``loss()`` evaluates the objective at the parameters as they are now. Every perturbation starts from a copy of the clean
values and the clean values are copied back, also when a query raises: nothing drifts, in any dtype. ``d`` parameters in
tensors of any shape; ``mu`` the smoothing radius; ``q`` directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Loss = Callable[[], Tensor]
Draw = Callable[[tuple[int, ...]], Tensor]
"""Standard normal draws of a shape, one after another."""

LAWS = ("gaussian", "sphere", "tensor-sphere")
"""Where directions come from: ``N(0, I)``, the unit sphere in R^d, or a unit sphere for every tensor."""


class Estimate(NamedTuple):
    """A gradient estimate and the loss that came with it.

    Args:
        gradient: one tensor per parameter, of its shape.
        loss: ``[]``: at the clean parameters (forward), or the mean over all that were evaluated (central).
    """

    gradient: list[Tensor]
    loss: Tensor


@dataclass(frozen=True)
class RGE:
    """A randomised gradient estimator: :func:`random_gradient` with its options.

    Args:
        mu: smoothing radius, > 0.
        queries: q, the number of directions, >= 1.
        central: two-sided differences.
        law: one of :data:`LAWS`.
    """

    mu: float
    queries: int = 1
    central: bool = False
    law: str = "gaussian"

    def __call__(self, loss: Loss, parameters: Sequence[Tensor], draw: Draw) -> Estimate:
        """Estimate the gradient at the live parameters."""
        return random_gradient(loss, parameters, draw, mu=self.mu, queries=self.queries, central=self.central,
                               law=self.law)  # fmt: skip


@torch.no_grad()
def random_gradient(
    loss: Loss,
    parameters: Sequence[Tensor],
    draw: Draw,
    *,
    mu: float,
    queries: int = 1,
    central: bool = False,
    law: str = "gaussian",
) -> Estimate:
    """RGE (SPSA): ``g = c/q sum_i s_i u_i`` with the slope ``s_i`` of the loss along ``u_i``.

    Forward ``s_i = (f(theta + mu u_i) - f(theta)) / mu``: q + 1 losses. Central
    ``s_i = (f(theta + mu u_i) - f(theta - mu u_i)) / (2 mu)``: 2q losses. ``c`` makes the estimate unbiased for the
    smoothed loss: 1 (Gaussian), d (sphere), the tensor's size (tensor-sphere). Holds a copy, one direction and the sum.

    Args:
        loss: the objective at the live parameters.
        parameters: what is perturbed.
        draw: source of Gaussian directions.
        mu: smoothing radius, > 0.
        queries: q, the number of directions, >= 1.
        central: two-sided differences.
        law: one of :data:`LAWS`.
    """
    live = list(parameters)
    total = [torch.zeros_like(p) for p in live]
    weights = factors(live, law)
    with restored(live) as clean:
        base = None if central else loss().clone()
        seen = []
        for _ in range(queries):
            u = direction(live, draw, law)
            torch._foreach_add_(live, u, alpha=mu)
            above = loss()
            if base is None:
                torch._foreach_copy_(live, clean)
                torch._foreach_add_(live, u, alpha=-mu)
                below = loss()
                seen += [above, below]
                slope = float(above - below) / (2 * mu)
            else:
                slope = float(above - base) / mu
            torch._foreach_copy_(live, clean)
            torch._foreach_add_(total, u, alpha=slope / queries)
    torch._foreach_mul_(total, weights)
    return Estimate(total, torch.stack(seen).mean() if base is None else base)


def direction(parameters: Sequence[Tensor], draw: Draw, law: str) -> list[Tensor]:
    """One direction, shaped like the parameters."""
    u = [draw(tuple(p.shape)).to(p) for p in parameters]
    if law == "gaussian":
        return u
    norms = list(torch._foreach_norm(u))
    if law == "sphere":
        norms = [torch.linalg.vector_norm(torch.stack([n.to(norms[0]) for n in norms]))] * len(u)
    return [v / n.to(v) for v, n in zip(u, norms, strict=True)]


def factors(parameters: Sequence[Tensor], law: str) -> list[float]:
    """What makes the estimate along directions of a law unbiased: ``1 / E[u_j^2]`` of each tensor.

    Raises:
        ValueError: the law is unknown.
    """
    if law == "gaussian":
        return [1.0] * len(parameters)
    if law == "sphere":
        return [float(sum(p.numel() for p in parameters))] * len(parameters)
    if law == "tensor-sphere":
        return [float(p.numel()) for p in parameters]
    raise ValueError(f"law = {law!r}: must be one of {', '.join(map(repr, LAWS))}")


@torch.no_grad()
def coordinate_gradient(
    loss: Loss,
    parameters: Sequence[Tensor],
    *,
    mu: float,
    central: bool = False,
    masks: Sequence[Tensor | None] | None = None,
) -> Estimate:
    """CGE: ``g_i = (f(theta + mu e_i) - f(theta)) / mu`` for every active coordinate i, 0 elsewhere.

    |S| + 1 losses for |S| active coordinates; central ``(f(theta + mu e_i) - f(theta - mu e_i)) / (2 mu)``: 2|S|.
    One coordinate is changed and put back at a time, so no copy of the parameters is held.

    Args:
        loss: the objective at the live parameters.
        parameters: what is perturbed; any strides.
        mu: smoothing radius, > 0.
        central: two-sided differences, error O(mu^2) instead of O(mu).
        masks: per parameter, True where a coordinate is active, or None for the whole tensor.
    """
    live = list(parameters)
    gradient = [torch.zeros_like(p) for p in live]
    base = None if central else loss().clone()
    total = torch.zeros_like(base) if base is not None else torch.zeros((), dtype=live[0].dtype, device=live[0].device)
    count = 0
    for p, g, mask in zip(live, gradient, masks or [None] * len(live), strict=True):
        for index in _active(p, mask):
            at, count = p[index], count + 1
            above = displaced(loss, at, mu)
            if base is not None:
                g[index] = (above - base) / mu
            else:
                below = displaced(loss, at, -mu)
                g[index] = (above - below) / (2 * mu)
                total = total + above + below
    return Estimate(gradient, total / max(2 * count, 1) if base is None else base)


def _active(p: Tensor, mask: Tensor | None) -> Iterator[tuple[int, ...]]:
    if mask is None:
        yield from np.ndindex(*p.shape)
    else:
        yield from map(tuple, mask.nonzero().tolist())


def displaced(loss: Loss, at: Tensor, by: float) -> Tensor:
    """The loss with one coordinate (a view ``[]``) moved; the coordinate is put back bit for bit."""
    clean = at.clone()
    try:
        at.add_(by)
        return loss().clone()
    finally:
        at.copy_(clean)


@contextmanager
def restored(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Give a copy of the parameters, and copy it back at the end, whatever happened."""
    clean = [p.clone() for p in parameters]
    try:
        yield clean
    finally:
        torch._foreach_copy_(list(parameters), clean)


def project(gradient: Sequence[Tensor], basis: Tensor, *, out: bool = False) -> list[Tensor]:
    """``E' E g`` for the orthonormal rows of ``basis E [k, d]``, or with ``out`` the rest ``g - E' E g``.

    ``g`` is all tensors flattened, one after another. (The subspace gradients of arXiv 2503.14868 take the noisy
    principal directions of past iterates *out*.)
    """
    flat = torch.cat([g.reshape(-1) for g in gradient])
    inside = basis.T @ (basis @ flat)
    pieces = torch.split(flat - inside if out else inside, [g.numel() for g in gradient])
    return [piece.view(g.shape) for piece, g in zip(pieces, gradient, strict=True)]
