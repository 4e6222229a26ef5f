"""Where the windows of a convolution lie, for both frameworks."""

from __future__ import annotations

from typing import NamedTuple


class Geometry(NamedTuple):
    """Where the windows of a convolution lie; padding is ``(left, right, top, bottom)``."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    mode: str = "zeros"

    @property
    def same3(self) -> bool:
        """A 3 x 3 kernel at every pixel of the zero-padded image: what ``shifted_gram`` is for."""
        return self == Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
