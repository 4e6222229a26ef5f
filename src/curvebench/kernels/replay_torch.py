"""Walks along a direction that is drawn again from its stream instead of being stored.

A *direction* is a function that yields ``(view of a parameter, displacement of one unit)`` piece by piece, the same
ones every time it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.kernels.team_torch import size, together
from curvebench.kernels.zeroth_torch import Draw

CHUNK = 65536
"""Scalars drawn at a time: a multiple of 16, for which torch's CPU draws equal one undivided draw bit for bit; few
enough for the cache of a core, and so many that threads seldom wait for Python's lock."""

Direction: TypeAlias = Callable[[], Iterable[tuple[Tensor, Tensor]]]
Piece: TypeAlias = tuple[int, slice | None, tuple[int, ...]]
"""Which parameter, which flat part of it (None: all), and the shape of the noise."""
Visit: TypeAlias = Callable[[int, Tensor, Tensor], None]
Fill: TypeAlias = Callable[[Tensor], Tensor]
"""Overwrite a tensor with the next standard normal draws."""
Blocks: TypeAlias = Callable[[], Callable[[int], Fill]]
"""Opens a source of numbered blocks of noise: ``fill = source(number)`` begins one, the same draws at every time."""


def pieces(parameters: Sequence[Tensor]) -> Iterator[Piece]:
    """All parameters in order; large contiguous tensors in flat parts of :data:`CHUNK`."""
    for i, p in enumerate(parameters):
        if not p.is_contiguous() or p.numel() <= CHUNK + 16:
            yield i, None, tuple(p.shape)
            continue
        whole = (p.numel() - 16) // CHUNK * CHUNK  # the last piece keeps at least 16 scalars
        for start in range(0, whole, CHUNK):
            yield i, slice(start, start + CHUNK), (CHUNK,)
        yield i, slice(whole, p.numel()), (p.numel() - whole,)


def noise(parameters: Sequence[Tensor], draw: Draw) -> Iterator[tuple[int, slice | None, Tensor]]:
    """Standard normal noise for all parameters in order: ``(which parameter, which part, z of the part's shape)``.

    Large tensors come in :func:`pieces`, so that the noise never needs memory of its own.
    """
    for i, rows, shape in pieces(parameters):
        yield i, rows, draw(shape).to(parameters[i])


@torch.no_grad()
def visit(parameters: Sequence[Tensor], fill: Fill, each: Visit) -> None:
    """Call ``each(which parameter, view of a piece, z of its shape)`` for all pieces in order; ``z`` is overwritten."""
    _run(parameters, pieces(parameters), {}, fill, each)


@torch.no_grad()
def visit_blocks(parameters: Sequence[Tensor], blocks: Blocks, each: Visit) -> None:
    """:func:`visit` with noise in numbered blocks that have seeds of their own, so that threads can share the work.

    Block 0 is all small tensors, in order; each part of a large one is a further block. On a CPU the threads of torch
    take the next block whenever they are done with one. The noise does not depend on how many there are.

    Args:
        parameters: what the noise is for.
        blocks: called once by each thread.
        each: called from several threads, for different pieces; ``z`` is overwritten afterwards.
    """
    order = list(pieces(parameters))
    small, large = [p for p in order if p[1] is None], [[p] for p in order if p[1] is not None]
    todo = enumerate([small, *large])  # taking the next is one call into C, under Python's lock

    def share() -> None:
        at, buffers = blocks(), dict[Any, Tensor]()
        with torch.no_grad():  # a thread has a switch of its own
            for number, block in todo:
                _run(parameters, block, buffers, at(number), each)

    together(share, max(1, min(size(), len(large))) if parameters[0].device.type == "cpu" else 1)


def _run(
    parameters: Sequence[Tensor], block: Iterable[Piece], buffers: dict[Any, Tensor], fill: Fill, each: Visit
) -> None:
    """Draw some pieces, all parts of large tensors of one dtype into the same memory."""
    for i, rows, shape in block:
        p = parameters[i]
        if rows is None:
            each(i, p, fill(p.new_empty(shape)))
            continue
        kind = (p.dtype, p.device)
        if (buffer := buffers.get(kind)) is None:
            buffer = buffers[kind] = p.new_empty(CHUNK + 16)
        each(i, p.view(-1)[rows], fill(buffer[: shape[0]]))


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


@dataclass(frozen=True)
class Along:
    """A direction by what it does.

    Args:
        add: add a multiple of the direction to the parameters.
    """

    add: Callable[[float], None]

    @classmethod
    def of(cls, direction: Direction) -> Along:
        """One piece after another."""

        def add(step: float) -> None:
            for view, unit in direction():
                view.add_(unit, alpha=step)

        return cls(add)


class Probe:
    """Parameters moved along a direction, and back.

    ``with Probe(...) as probe: probe.to(eps); f(); probe.to(-eps); f(); rest = probe.release()``. If the block is left
    without ``release()``, by an exception or otherwise, the parameters are put back.

    Args:
        parameters: all parameters that the direction moves.
        direction: yields views of them with displacements, or adds a multiple by itself.
        copy: hold a copy and restore bit for bit; else walk by differences, with drift of rounding size.
    """

    def __init__(self, parameters: Sequence[Tensor], direction: Direction | Along, copy: bool) -> None:
        self._parameters = list(parameters)
        self._along = direction if isinstance(direction, Along) else Along.of(direction)
        self._clean = [p.clone() for p in parameters] if copy else None
        self._at = 0.0

    def to(self, position: float) -> None:
        """Move to ``theta + position u``."""
        if self._clean is not None and self._at:
            torch._foreach_copy_(self._parameters, self._clean)
            self._at = 0.0
        if step := position - self._at:
            self._along.add(step)
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
        if not self._at:
            return
        if self._clean is not None:
            torch._foreach_copy_(self._parameters, self._clean)
        else:
            self.to(0.0)
