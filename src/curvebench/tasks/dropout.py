"""Dropout whose masks are a pure function of (task, seed block, step, row): the same bits in torch and jax.

Each sample of a batch carries a key of 32 bits, drawn as crop-and-flip is. Element i of site s is kept iff
``signed(mix(h(i, s) ^ key)) >= round(rate 2^32) - 2^31`` with h the finaliser of MurmurHash3 (Appleby 2011) of
``i + s 0x9E3779B9`` and ``mix(x) = y 0x846CA68B``, ``y = z ^ (z >> 15)``, ``z = x 0x7FEB352D``, all modulo 2^32. Kept
elements are divided by ``1 - rate``, as ``nn.Dropout`` does. So all queries at a point, both evaluations of a
zeroth-order method and every replay within a step see one deterministic function; no generator has a state to save.

This file is the definition, in NumPy; the twins are :mod:`curvebench.tasks.dropout_torch` and ``dropout_jax``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.spec import seed

GOLDEN, FIRST, SECOND = 0x9E3779B9, 0x7FEB352D, 0x846CA68B
MURMUR = (0x85EBCA6B, 0xC2B2AE35)


@dataclass(frozen=True)
class DropoutKeys:
    """Gives every sample of a training batch its key: one more row behind tokens and segments, or one more column.

    Evaluation sees no key, and its twins drop nothing.
    """

    columns = 1

    def draws(self, base: int, step: int, batch: int) -> npt.NDArray[np.int32]:
        """``[batch, 1]``: uniform on all 32-bit integers."""
        rng = np.random.Generator(np.random.Philox(seed("dropout", base, step)))
        return rng.integers(-(2**31), 2**31, (batch, 1), dtype=np.int32)

    def in_torch(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """Append the keys ``[batch, 1]`` to int64 ``inputs``."""
        import torch

        keys = draws.to(inputs.dtype)
        if inputs.ndim == 3:
            keys = keys[:, :, None].expand(-1, 1, inputs.shape[2])
        return torch.cat([inputs, keys], dim=1), targets

    def in_jax(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """Append the keys ``[batch, 1]`` to int32 ``inputs``."""
        import jax.numpy as jnp

        if inputs.ndim == 3:
            draws = jnp.broadcast_to(draws[:, :, None], (len(inputs), 1, inputs.shape[2]))
        return jnp.concatenate([inputs, draws], axis=1), targets


def check_rate(name: str, rate: float) -> float:
    """The rate of dropout.

    Raises:
        ValueError: it does not lie in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"{name}: dropout = {rate:g}: must lie in [0, 1)")
    return rate


def threshold(rate: float) -> int:
    """What a signed hash must reach for its element to be kept."""
    return int(min(round(rate * 2**32), 2**32 - 1) - 2**31)


def places(shape: Sequence[int], strides: Sequence[int]) -> npt.NDArray[np.uint32]:
    """``i`` of every element of one sample: fixed strides, so that a sample cut after its last token has the same."""
    grids = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in shape), indexing="ij")
    total = np.zeros(tuple(shape), np.uint32)
    for grid, stride in zip(grids, strides, strict=True):
        total += grid * np.uint32(stride)
    return total


def hashed(index: npt.NDArray[np.uint32], site: int) -> npt.NDArray[np.uint32]:
    """``h(i, s)``."""
    x = index + np.uint32(site * GOLDEN & 0xFFFFFFFF)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(MURMUR[0])
    x = (x ^ (x >> np.uint32(13))) * np.uint32(MURMUR[1])
    return x ^ (x >> np.uint32(16))


def kept(
    keys: npt.NDArray[np.int32], shape: Sequence[int], strides: Sequence[int], site: int, rate: float
) -> npt.NDArray[np.bool_]:
    """``[batch, *shape]``: which elements stay; the slow definition that the twins are tested against."""
    spread = keys.astype(np.int32).view(np.uint32).reshape(-1, *(1 for _ in shape))
    x = (hashed(places(shape, strides), site)[None] ^ spread) * np.uint32(FIRST)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(SECOND)
    return x.view(np.int32) >= threshold(rate)
