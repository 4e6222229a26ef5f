"""Crop-and-flip, drawn in NumPy: a pure function of (task, seed block, step), so the same bits in torch and jax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curvebench.spec import seed


@dataclass(frozen=True)
class CropFlip:
    """Pad with black, cut a window of the image's own size at a random place, mirror every second one.

    Black is the byte 0, before normalisation, as image libraries pad.

    Args:
        padding: pixels on every side; the window's corner is uniform on ``0..2 padding`` in both directions.

    Raises:
        ValueError: padding is negative.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding = {self.padding}: must be at least 0")

    def draws(self, base: int, step: int, batch: int) -> npt.NDArray[np.int32]:
        """``[batch, 3]``: the window's row, its column, and whether it is mirrored (0 or 1)."""
        rng = np.random.Generator(np.random.Philox(seed("augment", base, step)))
        corner = rng.integers(0, 2 * self.padding + 1, (batch, 2), dtype=np.int32)
        return np.concatenate([corner, rng.integers(0, 2, (batch, 1), dtype=np.int32)], axis=1)
