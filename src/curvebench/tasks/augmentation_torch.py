"""Crop-and-flip on a whole batch of byte images, on the device that trains (torch)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def crop_flip(images: Tensor, draws: Tensor, padding: int) -> Tensor:
    """``out[n, c, i, j] = padded[n, c, row_n + i, column_n + (j or w - 1 - j)]``: one gather for the batch.

    Args:
        images: ``[batch, channels, h, w]`` uint8.
        draws: ``[batch, 3]`` from :meth:`curvebench.tasks.augmentation.CropFlip.draws`, on the images' device.
        padding: of black pixels on every side.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4).flatten(2)
    row, column, mirrored = draws.long().unbind(1)
    across = torch.arange(width, device=images.device)
    across = torch.where(mirrored[:, None] == 1, width - 1 - across, across) + column[:, None]
    down = torch.arange(height, device=images.device) + row[:, None]
    index = (down[:, :, None] * (width + 2 * padding) + across[:, None, :]).flatten(1)
    return padded.gather(2, index[:, None].expand(-1, channels, -1)).view(batch, channels, height, width)
