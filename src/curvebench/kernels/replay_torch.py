"""Walks along a direction that is drawn again from its stream instead of being stored.

A *direction* is a function that yields ``(view of a parameter, displacement of one unit)`` piece by piece, the same
ones every time it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.kernels.zeroth_torch import Draw

CHUNK = 65536
"""Scalars drawn at a time: a multiple of 16, for which torch's CPU draws equal one undivided draw bit for bit."""

Direction = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def noise(parameters: Sequence[Tensor], draw: Draw) -> Iterator[tuple[int, slice | None, Tensor]]:
    """Standard normal noise for all parameters in order: ``(which parameter, which part, z of the part's shape)``.

    Large contiguous tensors come in flat parts of :data:`CHUNK`, so that the noise never needs memory of its own.
    """
    for i, p in enumerate(parameters):
        if not p.is_contiguous() or p.numel() <= CHUNK + 16:
            yield i, None, draw(tuple(p.shape)).to(p)
            continue
        whole = (p.numel() - 16) // CHUNK * CHUNK  # the last piece keeps at least 16 scalars
        for start in range(0, whole, CHUNK):
            yield i, slice(start, start + CHUNK), draw((CHUNK,)).to(p)
        yield i, slice(whole, p.numel()), draw((p.numel() - whole,)).to(p)


def part(tensor: Tensor, rows: slice | None) -> Tensor:
    """The view that :func:`noise` means: the tensor, or a piece of it flattened."""
    return tensor if rows is None else tensor.view(-1)[rows]


def refuse_half(method: str, parameters: Sequence[Tensor]) -> None:
    """Refuse to walk by differences where that loses the weights.

    Raises:
        HyperparameterError: a parameter has half precision.
    """
    for p in parameters:
        if p.dtype in (torch.float16, torch.bfloat16):
            raise HyperparameterError(
                f"{method}: restore = 'replay' with {p.dtype} parameters: adding and subtracting noise does not "
                "restore half-precision weights; use restore='copy'"
            )


class Probe:
    """Parameters moved along a direction, and back.

    ``with Probe(...) as probe: probe.to(eps); f(); probe.to(-eps); f(); rest = probe.release()``. If the block is left
    by an exception the parameters are put back.

    Args:
        parameters: all parameters that the direction moves.
        direction: yields views of them with displacements.
        copy: hold a copy and restore bit for bit; else walk by differences, with drift of rounding size.
    """

    def __init__(self, parameters: Sequence[Tensor], direction: Direction, copy: bool) -> None:
        self._parameters = list(parameters)
        self._direction = direction
        self._clean = [p.clone() for p in parameters] if copy else None
        self._at = 0.0

    def to(self, position: float) -> None:
        """Move to ``theta + position u``."""
        if self._clean is not None and self._at:
            torch._foreach_copy_(self._parameters, self._clean)
            self._at = 0.0
        if step := position - self._at:
            for view, unit in self._direction():
                view.add_(unit, alpha=step)
        self._at = position

    def release(self) -> float:
        """End the walk: the multiple of ``u`` that the caller must still add to be back (0 with a copy).

        Left to the caller because it can be fused with the update, which saves one pass of drawing.
        """
        if self._clean is not None:
            torch._foreach_copy_(self._parameters, self._clean)
            self._at = 0.0
        left, self._at = -self._at, 0.0
        return left

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not self._at:
            return
        if self._clean is not None:
            torch._foreach_copy_(self._parameters, self._clean)
        else:
            self.to(0.0)
