"""Crop-and-flip on a whole batch of byte images, traced inside the step (jax)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def crop_flip(images: Array, draws: Array, padding: int) -> Array:
    """The twin of :func:`curvebench.tasks.augmentation_torch.crop_flip`, bit for bit.

    Args:
        images: ``[batch, channels, h, w]`` uint8.
        draws: ``[batch, 3]`` from :meth:`curvebench.tasks.augmentation.CropFlip.draws`.
        padding: of black pixels on every side.
    """
    batch, channels, height, width = images.shape
    edges = (padding, padding)
    padded = jnp.pad(images, ((0, 0), (0, 0), edges, edges)).reshape(batch, channels, -1)
    row, column, mirrored = draws[:, 0], draws[:, 1], draws[:, 2]
    across = jnp.arange(width)
    across = jnp.where(mirrored[:, None] == 1, width - 1 - across, across) + column[:, None]
    down = jnp.arange(height) + row[:, None]
    index = (down[:, :, None] * (width + 2 * padding) + across[:, None, :]).reshape(batch, 1, -1)
    out: Array = jnp.take_along_axis(padded, index, axis=2).reshape(batch, channels, height, width)
    return out
