"""Trace and diagonal of a symmetric matrix from products with random probes.

``H [d, d]`` is known by ``product: v [d] -> H v [d]``. Probes ``z [d]`` come from outside, independent, with mean 0
and ``E[z z'] = I``: Rademacher (+-1) or standard normal. Every estimate comes with its standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


class Estimate(NamedTuple):
    """A mean over independent draws.

    Args:
        value: the mean.
        standard_error: of the mean, of the same shape: ``s / sqrt(n)``; NaN for a single draw.
        draws: n.
    """

    value: Tensor
    standard_error: Tensor
    draws: int


@torch.no_grad()
def hutchinson_diagonal(product: Product, probes: Iterable[Tensor]) -> Estimate:
    """``diag H`` as the mean of ``z * (H z)``, ``[d]``.

    Exact with one Rademacher probe where H is diagonal. Otherwise unbiased, with variance per probe
    ``sum_{j != i} H_ij^2`` (Rademacher) or ``sum_{j != i} H_ij^2 + 2 H_ii^2`` (normal).

    Args:
        product: ``v -> H v``.
        probes: one product each.

    Raises:
        ValueError: there is no probe.
    """
    return average(z * product(z) for z in probes)


@torch.no_grad()
def hutchinson_trace(product: Product, probes: Iterable[Tensor]) -> Estimate:
    """``tr H`` as the mean of ``z' H z``, ``[]``.

    Unbiased, with variance per probe ``2 sum_{i != j} H_ij^2`` (Rademacher) or ``2 ||H||_F^2`` (normal).

    Args:
        product: ``v -> H v``.
        probes: one product each.

    Raises:
        ValueError: there is no probe.
    """
    return average(torch.dot(_wide(z), _wide(product(z))) for z in probes)


@torch.no_grad()
def hutchinson_block_traces(product: Product, probes: Iterable[Tensor], sizes: Sequence[int]) -> Estimate:
    """Traces of the diagonal blocks of H, ``[blocks]``: means of ``z_b' (H z)_b``; all blocks from the same products.

    Unbiased: what ``H`` does between blocks has mean zero. Variance per probe, for Rademacher: that of the block's own
    trace, and ``sum H_ij^2`` over i in the block and j outside. With blocks for layers these are the traces of
    HAWQ-V2 (arXiv 1911.03852).

    Args:
        product: ``v -> H v``.
        probes: one product each.
        sizes: elements of the blocks, one after another.

    Raises:
        ValueError: there is no probe.
    """
    return average(torch.stack([part.sum() for part in torch.split(_wide(z) * _wide(product(z)), list(sizes))])
                   for z in probes)  # fmt: skip


@torch.no_grad()
def hutchpp_trace(product: Product, sketch: Tensor, probes: Iterable[Tensor]) -> Estimate:
    """``tr H = tr(Q'HQ)`` exactly ``+`` the mean of ``y'Hy`` with ``y = (I - QQ') z``: Hutch++, ``[]``.

    ``Q`` spans ``H S'`` for the rows of the sketch ``S``. Exact where the rank of H is at most the number of rows; the
    error falls with 1/m in m products instead of 1/sqrt(m) where the spectrum decays. The standard error is that of
    the second part.

    Args:
        product: ``v -> H v``.
        sketch: ``S [k, d]``, random rows; two products each.
        probes: one product each, independent of the sketch.

    Raises:
        ValueError: there is no probe.

    Reference: Meyer, Musco, Musco, Woodruff 2021, arXiv 2010.09649.
    """
    Q = torch.linalg.qr(torch.stack([product(row) for row in sketch], dim=1)).Q
    exact = sum((torch.dot(q, product(q)) for q in Q.T), start=sketch.new_zeros(()))

    def rest(z: Tensor) -> Tensor:
        y = z - Q @ (Q.T @ z)
        return torch.dot(y, product(y))

    found = average(rest(z) for z in probes)
    return found._replace(value=found.value + exact)


def average(draws: Iterable[Tensor]) -> Estimate:
    """Mean and standard error of tensors of one shape, one pass, nothing kept (Welford); half precision is widened.

    Raises:
        ValueError: there is nothing to average.
    """
    n, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for draw in map(_wide, draws):
        if n == 0:
            mean, squares = torch.zeros_like(draw), torch.zeros_like(draw)
        n += 1
        off = draw - mean
        mean = mean + off / n
        squares = squares + off * (draw - mean)
    if n == 0:
        raise ValueError("probes: there is none: at least one is needed")
    error = (squares / (n * (n - 1))).sqrt() if n > 1 else torch.full_like(mean, torch.nan)
    return Estimate(mean, error, n)


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
