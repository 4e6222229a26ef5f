"""Dropout in torch, bit for bit that of :mod:`curvebench.tasks.dropout_jax`; see :mod:`curvebench.tasks.dropout`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from curvebench.tasks.dropout import FIRST, SECOND, hashed, places, threshold


def signed(number: int) -> int:
    """The int32 with the bits of a uint32; int32 products wrap, so the arithmetic is the same modulo 2^32."""
    return number - 2**32 if number >= 2**31 else number


class Keys:
    """The keys ``[batch]`` of the forward that is running, shared by a model's dropout layers; None: nothing drops."""

    def __init__(self) -> None:
        self.now: Tensor | None = None


class KeyedDropout(nn.Module):
    """One site of dropout.

    Args:
        keys: of the running forward.
        rate: share of elements that drop.
        site: number of the site.
        strides: of an element's number over the axes behind the batch.
    """

    def __init__(self, keys: Keys, rate: float, site: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.p = rate
        self._keys, self._site, self._strides = keys, site, strides
        self._hashes: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs [batch, ...]`` with the step's mask, over ``1 - rate``; unchanged in evaluation."""
        keys = self._keys.now
        if keys is None or not self.training:
            return inputs
        shape = tuple(inputs.shape[1:])
        hashes = self._hashes.get((shape, inputs.device))
        if hashes is None:
            table = hashed(places(shape, self._strides), self._site).view(np.int32)
            hashes = self._hashes[shape, inputs.device] = torch.from_numpy(table).to(inputs.device)
        x = (hashes ^ keys.view(-1, *(1 for _ in shape))) * signed(FIRST)
        x = (x ^ ((x >> 15) & 0x1FFFF)) * signed(SECOND)
        kept = (x >= threshold(self.p)).to(inputs.dtype)
        return inputs * (kept / (1 - self.p))
