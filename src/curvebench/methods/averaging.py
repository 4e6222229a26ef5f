"""What AdaHessian averages ``|H z|`` over, for both frameworks: axes of a tensor, or blocks of its elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from curvebench.errors import HyperparameterError

Averaging: TypeAlias = str | tuple[int, int, int, int]
"""``'conv'``, ``'row'``, ``'none'``, or block sizes of 1-, 2-, 3- and 4-dimensional tensors."""

AXES: dict[str, dict[int, tuple[int, ...]]] = {
    "conv": {4: (2, 3)},
    "row": {2: (1,), 3: (2,), 4: (2, 3)},
    "none": {},
}
"""Rule -> number of dimensions -> axes of the mean; other tensors stay as they are."""


def resolve(method: str, averaging: object) -> Averaging:
    """Return the rule, a list of block sizes as a tuple.

    Raises:
        HyperparameterError: it is neither a known word nor four whole numbers that are -1 or at least 1.
    """
    if isinstance(averaging, str) and averaging in AXES:
        return averaging
    if isinstance(averaging, Sequence) and len(averaging) == 4 and all(map(_is_size, averaging)):
        b1, b2, b3, b4 = averaging
        return b1, b2, b3, b4
    words = ", ".join(map(repr, AXES))
    raise HyperparameterError(
        f"{method}: averaging = {averaging!r}: must be one of {words}, or four block sizes (for tensors of 1, 2, 3 and "
        "4 dimensions), each -1 or in [1, inf)"
    )


def plan(method: str, averaging: Averaging, shape: Sequence[int]) -> int | tuple[int, ...]:
    """What is averaged over in a tensor of that shape: axes (none: ``()``), or blocks of so many consecutive elements.

    Tensors of more than four dimensions take the size of four.

    Raises:
        HyperparameterError: a block size does not divide the number of elements.
    """
    n = len(shape)
    if isinstance(averaging, str):
        return AXES[averaging].get(n, ())
    block = averaging[min(n, 4) - 1] if n else 1
    if block == -1:
        return AXES["row"].get(n, ())
    if block == 1:
        return ()
    if math.prod(shape) % block:
        raise HyperparameterError(
            f"{method}: averaging = {averaging!r}: blocks of {block} do not divide the {math.prod(shape)} elements of "
            f"a parameter of shape {tuple(shape)}: give such parameters a group of their own with another averaging"
        )
    return block


def _is_size(block: object) -> bool:
    return isinstance(block, int) and not isinstance(block, bool) and (block == -1 or block >= 1)
