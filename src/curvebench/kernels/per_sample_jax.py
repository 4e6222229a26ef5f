"""Gradients of every sample's own loss in jax, in one vectorised pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax


def per_sample_gradients(
    loss: Callable[[Any, Array, Array], Array],
    parameters: Any,
    inputs: Array,
    targets: Array,
    *,
    chunk_size: int | None = None,
) -> Any:
    """``g_n = grad loss(theta, x_n, y_n)`` for every sample n: ``[batch, *shape]`` for each parameter.

    ``vmap(grad)``: about the arithmetic of one gradient of the batch, ``batch * d`` numbers of memory. The loss is
    called with batches of one sample, so whatever couples samples (BatchNorm in training mode) is an error of meaning.

    Args:
        loss: the loss ``[]`` of parameters, inputs ``[1, ...]`` and targets ``[1, ...]``.
        parameters: a tree.
        inputs: ``[batch, ...]``.
        targets: ``[batch, ...]``.
        chunk_size: samples at a time, in a loop, which bounds the memory of what is between; None: all.
    """

    def one(sample: tuple[Array, Array]) -> Any:
        x, y = sample
        return jax.grad(loss)(parameters, x[None], y[None])

    if chunk_size is None:
        return jax.vmap(one)((inputs, targets))
    return lax.map(one, (inputs, targets), batch_size=chunk_size)
