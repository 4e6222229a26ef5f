"""What is drawn for a training batch, in NumPy: a function of (task, seed block, step), the same bits in both twins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from curvebench.spec import seed


class Augmentation(Protocol):
    """Changes a training batch by what was drawn for it; evaluation sees the samples as they are."""

    @property
    def columns(self) -> int:
        """Integers that are drawn for each sample."""
        ...

    def draws(self, base: int, step: int, batch: int) -> npt.NDArray[np.int32]:
        """``[batch, columns]``, a function of its arguments alone."""
        ...

    def in_torch(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """The batch ``(inputs, targets)`` with the draws applied, on the device that trains."""
        ...

    def in_jax(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """The twin, traced inside the step: the same bits."""
        ...


@dataclass(frozen=True)
class Chain:
    """Several augmentations, one after another; each has draws of its own."""

    parts: tuple[Augmentation, ...]

    @property
    def columns(self) -> int:
        """The sum of the parts'."""
        return sum(part.columns for part in self.parts)

    def draws(self, base: int, step: int, batch: int) -> npt.NDArray[np.int32]:
        """The parts' draws side by side."""
        return np.concatenate([part.draws(base, step, batch) for part in self.parts], axis=1)

    def in_torch(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """Part after part."""
        at = 0
        for part in self.parts:
            inputs, targets = part.in_torch(inputs, targets, draws[:, at : at + part.columns])
            at += part.columns
        return inputs, targets

    def in_jax(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """Part after part."""
        at = 0
        for part in self.parts:
            inputs, targets = part.in_jax(inputs, targets, draws[:, at : at + part.columns])
            at += part.columns
        return inputs, targets


def chain(parts: Sequence[Augmentation]) -> Augmentation | None:
    """All of them as one; None for none."""
    return None if not parts else parts[0] if len(parts) == 1 else Chain(tuple(parts))


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
    columns = 3

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding = {self.padding}: must be at least 0")

    def draws(self, base: int, step: int, batch: int) -> npt.NDArray[np.int32]:
        """``[batch, 3]``: the window's row, its column, and whether it is mirrored (0 or 1)."""
        rng = np.random.Generator(np.random.Philox(seed("augment", base, step)))
        corner = rng.integers(0, 2 * self.padding + 1, (batch, 2), dtype=np.int32)
        return np.concatenate([corner, rng.integers(0, 2, (batch, 1), dtype=np.int32)], axis=1)

    def in_torch(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """One gather for the batch."""
        from curvebench.tasks.augmentation_torch import crop_flip

        return crop_flip(inputs, draws, self.padding), targets

    def in_jax(self, inputs: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        """The twin."""
        from curvebench.tasks.augmentation_jax import crop_flip

        return crop_flip(inputs, draws, self.padding), targets
