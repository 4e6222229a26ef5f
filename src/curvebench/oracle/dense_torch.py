"""Matrices from their products: what small problems afford, and what references and certificates need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Products = Callable[[Sequence[Tensor]], list[Tensor]]

CHUNK = 128
"""Products asked at a time: enough to hide the cost of a call, few enough that their graph's tensors fit in memory."""


def rows(products: Products, like: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """``(rows, M[rows] [k, d])`` of a symmetric matrix: d products, each counted by the point that answers it.

    Args:
        products: ``V -> M V``, both ``[k, *shape]`` for every parameter.
        like: the parameters.
    """
    sizes = [p.numel() for p in like]
    d = sum(sizes)
    for start in range(0, d, CHUNK):
        k = min(CHUNK, d - start)
        units = torch.zeros(k, d, dtype=like[0].dtype, device=like[0].device)
        units.diagonal(start).fill_(1)
        pieces = torch.split(units, sizes, 1)
        found = products([v.reshape(k, *p.shape) for v, p in zip(pieces, like, strict=True)])
        yield slice(start, start + k), torch.cat([m.detach().reshape(k, -1) for m in found], 1)


def dense(products: Products, like: Sequence[Tensor]) -> Tensor:
    """The symmetric matrix ``(M + M') / 2`` ``[d, d]``, from d products."""
    M = torch.cat([part for _, part in rows(products, like)])
    return (M + M.T).div_(2)


def diagonal(products: Products, like: Sequence[Tensor]) -> Tensor:
    """The diagonal ``[d]``, exactly: d products, of which one number each is kept."""
    return torch.cat([part.diagonal(at.start) for at, part in rows(products, like)])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of any shape as one vector ``[d]``, without their graphs."""
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The pieces of a vector ``[d]``, shaped like the parameters and sharing its memory."""
    pieces = torch.split(vector, [p.numel() for p in like])
    return [piece.view(p.shape) for piece, p in zip(pieces, like, strict=True)]
