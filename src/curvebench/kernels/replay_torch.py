"""Walks along a direction that is drawn again from its stream instead of being stored.

A *direction* is a function that yields ``(view of a parameter, displacement of one unit)`` piece by piece, the same
ones every time it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache, partial
from types import TracebackType
from typing import TypeAlias

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.kernels.zeroth_torch import Draw

CHUNK = 32768
"""Scalars drawn at a time: a multiple of 16, for which torch's CPU draws equal one undivided draw bit for bit, and few
enough that torch adds them without starting threads."""

Direction: TypeAlias = Callable[[], Iterable[tuple[Tensor, Tensor]]]
Piece: TypeAlias = tuple[int, slice | None, tuple[int, ...]]
"""Which parameter, which flat part of it (None: all), and the shape of the noise."""
Visit: TypeAlias = Callable[[int, Tensor, Tensor], None]
Fill: TypeAlias = Callable[[Tensor], Tensor]
"""Overwrite a tensor with the next standard normal draws."""


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
def visit(parameters: Sequence[Tensor], fills: Sequence[Fill], each: Visit) -> None:
    """Call ``each(which parameter, view of a piece, z of its shape)`` for all pieces, in lanes side by side.

    The parts of large tensors take turns between the lanes; all else is in the first. A lane draws from its own source,
    so the noise does not depend on whether the lanes run at once: they do where torch may use several threads of a CPU.
    Drawing holds one core for about as long as the forward pass of a small model.

    Args:
        parameters: what the noise is for.
        fills: one source of standard normal noise a lane.
        each: called from several threads, for different pieces; ``z`` is overwritten afterwards.
    """
    lanes: list[list[Piece]] = [[] for _ in fills]
    large = 0
    for piece in pieces(parameters):
        lanes[large % len(lanes) if piece[1] is not None else 0].append(piece)
        large += piece[1] is not None
    jobs = [partial(_run, parameters, lane, fill, each) for lane, fill in zip(lanes, fills, strict=True) if lane]
    if len(jobs) > 1 and torch.get_num_threads() > 1 and parameters[0].device.type == "cpu":
        aside = [_workers().submit(job) for job in jobs[1:]]
        try:
            jobs[0]()
        finally:
            wait(aside)  # whatever happened here, nothing moves any more
        for lane_done in aside:
            lane_done.result()
    else:
        for job in jobs:
            job()


@torch.no_grad()  # a thread has a switch of its own
def _run(parameters: Sequence[Tensor], lane: Sequence[Piece], fill: Fill, each: Visit) -> None:
    """Draw one lane, all of its large parts into the same memory."""
    buffer: Tensor | None = None
    for i, rows, shape in lane:
        p = parameters[i]
        if rows is None:
            each(i, p, fill(p.new_empty(shape)))
            continue
        if buffer is None or buffer.dtype != p.dtype or buffer.device != p.device:
            buffer = p.new_empty(CHUNK + 16)
        each(i, p.view(-1)[rows], fill(buffer[: shape[0]]))


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="curvebench-noise")


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
