"""Streams of random probes in torch: native generators, or the reference Philox bits shared with jax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from curvebench.oracle import ledger as L
from curvebench.oracle.draws import ReferenceStream, unknown_kind

_MASK = (1 << 64) - 1
_COUNTING = Lock()  # streams of one step may be drawn from in several threads


class Stream(Protocol):
    """A named, rewindable sequence of draws."""

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """New tensor of draws."""
        ...

    def fill_(self, out: Tensor, kind: str) -> Tensor:
        """Draw into ``out``, in place."""
        ...


class NativeStream:
    """Draws of a ``torch.Generator`` that was seeded when the stream was opened.

    Args:
        generator: reseeded by the caller; draws follow one another in it.
        like: parameters' dtype and device.
        counts: ledger row; one draw is counted per scalar.
    """

    def __init__(self, generator: torch.Generator, like: Tensor, counts: list[int]) -> None:
        self._generator = generator
        self._like = like
        self._counts = counts

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """New tensor of the parameters' dtype and device."""
        return self.fill_(torch.empty(shape, dtype=self._like.dtype, device=self._like.device), kind)

    def fill_(self, out: Tensor, kind: str) -> Tensor:
        """Draw into ``out``."""
        with _COUNTING:
            self._counts[L.DRAWS] += out.numel()
        return fill_(out, kind, self._generator)

    def blocks(self, kind: str) -> Callable[[int], Callable[[Tensor], Tensor]]:
        """A source of numbered blocks of draws: ``source(number)`` begins one and returns what fills tensors from it.

        Each block has a seed of its own, so that several sources, one a thread, may draw a stream's blocks in any
        order. Block 0 begins like the stream itself.
        """
        generator, base = torch.Generator(self._generator.device), self._generator.initial_seed()
        part = NativeStream(generator, self._like, self._counts)

        def source(number: int) -> Callable[[Tensor], Tensor]:
            generator.manual_seed(block_seed(base, number))
            return partial(part.fill_, kind=kind)

        return source


class PhiloxStream:
    """The reference bits as torch tensors."""

    def __init__(self, stream: ReferenceStream, like: Tensor, counts: list[int]) -> None:
        self._stream = stream
        self._like = like
        self._counts = counts

    def draw(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """New tensor of the parameters' dtype and device."""
        values = torch.from_numpy(self._stream.draw(kind, shape))
        self._counts[L.DRAWS] += values.numel()
        return values.to(self._like.device, self._like.dtype)

    def fill_(self, out: Tensor, kind: str) -> Tensor:
        """Draw into ``out``."""
        return out.copy_(self.draw(kind, tuple(out.shape)))


def open_stream(
    generator: torch.Generator | None, base: int, run_seed: int, step: int, name: str, like: Tensor, counts: list[int]
) -> Stream:
    """Open the stream ``name`` of ``step``: native when a generator is given, else the reference bits."""
    if generator is None:
        return PhiloxStream(ReferenceStream(run_seed, step, name), like, counts)
    generator.manual_seed(mix(base, step))
    return NativeStream(generator, like, counts)


def mix(base: int, step: int) -> int:
    """Splitmix64 finaliser of (stream seed, step), folded to the 32 bits that torch's CPU generator really uses."""
    z = (base + 0x9E3779B97F4A7C15 * (step + 1)) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 32


def block_seed(base: int, number: int) -> int:
    """32 bits for a block of a stream with the seed ``base``: that itself for block 0, another for each below 2^32.

    Multiples of an odd number of the stream's own, and murmur's finaliser: both bijective.
    """
    start = mix(base, 1)
    return _mixed(start + (mix(base, 0) | 1) * number) ^ _mixed(start) ^ (base & 0xFFFFFFFF)


def _mixed(x: int) -> int:
    x &= 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


def fill_(out: Tensor, kind: str, generator: torch.Generator | None) -> Tensor:
    """Fill ``out`` in place with ``normal``, ``rademacher`` (+-1) or ``uniform`` [0, 1) draws.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "normal":
        return out.normal_(generator=generator)
    if kind == "rademacher":
        return out.random_(0, 2, generator=generator).mul_(2).sub_(1)
    if kind == "uniform":
        return out.uniform_(generator=generator)
    raise unknown_kind(kind)
