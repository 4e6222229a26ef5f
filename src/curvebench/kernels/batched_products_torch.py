"""Hessian and Gauss-Newton products with k vectors at once: one batched backward in place of k.

Shapes: vectors ``[k, *shape]``, one tensor per parameter; results likewise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from curvebench.kernels.products_torch import differentiate


def hessian_products(
    gradient: Sequence[Tensor], parameters: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """``H v_j`` for ``j = 1..k`` from a gradient that carries its graph.

    Args:
        gradient: one tensor per parameter; those without a graph are constant and contribute nothing.
        parameters: the leaves.
        vectors: ``[k, *shape]`` for every parameter.
    """
    live = [(g, v) for g, v in zip(gradient, vectors, strict=True) if g.requires_grad]
    if not live:
        return [torch.zeros_like(v) for v in vectors]
    return _batched([g for g, _ in live], parameters, [v for _, v in live])


def gauss_newton_products(
    outputs: Tensor,
    parameters: Sequence[Tensor],
    vectors: Sequence[Tensor],
    criterion: Callable[[Tensor], Tensor] | None = None,
    loss: Tensor | None = None,
) -> list[Tensor]:
    """``J' H_out J v_j`` for ``j = 1..k``: ``J v`` is the derivative of ``u -> J'u``, ``H_out w`` that of the residual.

    Args:
        outputs: the model's, with their graph to the parameters.
        parameters: the leaves.
        vectors: ``[k, *shape]`` for every parameter.
        criterion: the loss ``[]`` as a function of outputs; or
        loss: the loss ``[]`` as it was computed from ``outputs``, with its graph.
    """
    with torch.enable_grad():
        u = torch.zeros_like(outputs, requires_grad=True)
        pulled = differentiate([outputs], parameters, [u], create_graph=True)
        at = outputs if criterion is None else outputs.detach().requires_grad_()
        value = loss if criterion is None else criterion(at)
        assert value is not None
        (residual,) = differentiate([value], [at], create_graph=True)
    live = [(g, v) for g, v in zip(pulled, vectors, strict=True) if g.requires_grad]
    if not live or not residual.requires_grad:  # a loss that is linear in the outputs has no curvature
        return [torch.zeros_like(v) for v in vectors]
    (pushed,) = _batched([g for g, _ in live], [u], [v for _, v in live])
    (curved,) = _batched([residual], [at], [pushed])
    return _batched([outputs], parameters, [curved])


def _batched(outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    with warnings.catch_warnings():  # an operation without a batching rule runs in a loop: slower, and right
        warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
        found = torch.autograd.grad(outputs, inputs, vectors, retain_graph=True, allow_unused=True,
                                    is_grads_batched=True)  # fmt: skip
    k = len(vectors[0])
    results: list[Tensor | None] = list(found)  # torch's annotation knows nothing of allow_unused
    return [x.new_zeros((k, *x.shape)) if g is None else g for g, x in zip(results, inputs, strict=True)]
