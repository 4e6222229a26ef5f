"""Gradients of every sample's own loss, in one vectorised pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Parameters = dict[str, Tensor]


def per_sample_gradients(
    loss: Callable[[Parameters, Tensor, Tensor], Tensor],
    parameters: Parameters,
    inputs: Tensor,
    targets: Tensor,
    *,
    chunk_size: int | None = None,
) -> Parameters:
    """``g_n = grad loss(theta, x_n, y_n)`` for every sample n: ``[batch, *shape]`` for each parameter.

    ``vmap(grad)``: about the arithmetic of one gradient of the batch, ``batch * d`` numbers of memory. The loss is
    called with batches of one sample, so whatever couples samples (BatchNorm in training mode) is an error of meaning.

    Args:
        loss: the loss ``[]`` of parameters, inputs ``[1, ...]`` and targets ``[1, ...]``.
        parameters: by name.
        inputs: ``[batch, ...]``.
        targets: ``[batch, ...]``.
        chunk_size: samples at a time, which bounds the memory of what is between; None: all.
    """

    def one(p: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return loss(p, x.unsqueeze(0), y.unsqueeze(0))

    mapped = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0), chunk_size=chunk_size)
    found: Parameters = mapped(parameters, inputs, targets)
    return found
