"""Streams of random probes in jax: threefry keys, or the reference Philox bits shared with torch."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from curvebench.oracle.draws import KINDS, ReferenceStream, unknown_kind

CHUNK = 32768
"""Scalars drawn at a time by :meth:`Stream.walk`: what is between a key and a normal draw stays in cache."""


Walk: TypeAlias = Callable[..., tuple[Array, ...]]
"""``(z, *arrays) -> arrays``, elementwise: all of one shape."""


class Stream(Protocol):
    """A named, rewindable sequence of draws."""

    def draw(self, kind: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """New array of draws, of the stream's dtype or of ``dtype``."""
        ...

    def skip(self, rounds: Any, kind: str, shapes: Sequence[tuple[int, ...]]) -> None:
        """Pass over ``rounds`` (int, or traced) times the draws of these shapes, uncounted."""
        ...

    def walk(self, kind: str, function: Walk, arrays: Sequence[Array], reads: int = 0) -> tuple[Array, ...]:
        """``function(z, *arrays)`` elementwise, with draws ``z`` of their shape that are never all in memory.

        The last ``reads`` arrays are only read: the function returns the others.
        """
        ...


class NativeStream:
    """Draws from ``fold_in(fold_in(step key, name), i)``: any draw can be regenerated alone, nothing is stored.

    Args:
        key: typed key of the step.
        name: name of the stream.
        dtype: of the draws.
        count: called with the number of scalars of each draw.
    """

    def __init__(self, key: Array, name: str, dtype: Any, count: Callable[[int], None]) -> None:
        self._key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        self._dtype = dtype
        self._count = count
        self._position: Any = 0

    def draw(self, kind: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """New array of the parameters' dtype, or of ``dtype``."""
        self._count(math.prod(shape))
        return sample(self._next(), kind, shape, self._dtype if dtype is None else dtype)

    def skip(self, rounds: Any, kind: str, shapes: Sequence[tuple[int, ...]]) -> None:
        """Pass over ``rounds`` (int, or traced) times the draws of these shapes, uncounted."""
        del kind
        self._position = self._position + rounds * len(shapes)

    def walk(self, kind: str, function: Walk, arrays: Sequence[Array], reads: int = 0) -> tuple[Array, ...]:
        """``function(z, *arrays)`` in a loop over parts of :data:`CHUNK` scalars, each overwritten where it lies."""
        first = arrays[0]
        if first.size <= CHUNK:
            return function(self.draw(kind, first.shape, first.dtype), *arrays)
        self._count(first.size)
        key, whole = self._next(), first.size // CHUNK

        def part(j: Any, width: int, flat: tuple[Array, ...]) -> tuple[Array, ...]:
            z = sample(jax.random.fold_in(key, j), kind, (width,), first.dtype)
            start = (j * CHUNK,)
            new = function(z, *(lax.dynamic_slice(a, start, (width,)) for a in (*flat, *still)))
            return tuple(lax.dynamic_update_slice(a, piece, start) for a, piece in zip(flat, new, strict=True))

        flat = tuple(a.reshape(-1) for a in arrays)
        flat, still = flat[: len(flat) - reads], flat[len(flat) - reads :]
        flat = lax.fori_loop(0, whole, lambda j, flat: part(j, CHUNK, flat), flat)
        if rest := first.size - whole * CHUNK:
            flat = part(whole, rest, flat)
        return tuple(a.reshape(first.shape) for a in flat)

    def _next(self) -> Array:
        key = jax.random.fold_in(self._key, self._position)
        self._position = self._position + 1
        return key


class PhiloxStream:
    """The reference bits, fetched from the host at run time since the step is known only then. For tests."""

    def __init__(self, run_seed: Any, step: Any, name: str, dtype: Any, count: Callable[[int], None]) -> None:
        self._of = (run_seed, step)
        self._name = name
        self._dtype = dtype
        self._count = count
        self._drawn: list[tuple[str, tuple[int, ...]]] = []
        self._skipped: tuple[Any, list[tuple[str, tuple[int, ...]]]] = (0, [])

    def draw(self, kind: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """New array of the parameters' dtype, or of ``dtype``."""
        if kind not in KINDS:  # at once, not when the program runs
            raise unknown_kind(kind)
        self._count(math.prod(shape))
        before, (rounds, each) = tuple(self._drawn), self._skipped
        self._drawn.append((kind, shape))
        wanted = np.dtype(self._dtype if dtype is None else dtype)
        run_seed, step = self._of
        # A seed of the run is a Python integer of 64 bits, one that a method keeps is traced.
        fixed = run_seed if isinstance(run_seed, int) else None

        def host(step: Any, rounds: Any, kept: Any) -> np.ndarray[Any, Any]:
            stream = ReferenceStream(int(kept) if fixed is None else fixed, int(step), self._name)
            for _ in range(int(rounds)):
                for skipped in each:
                    stream.draw(*skipped)
            for earlier in before:
                stream.draw(*earlier)
            return stream.draw(kind, shape).astype(wanted)

        kept = run_seed if fixed is None else np.uint32(0)
        drawn: Array = jax.pure_callback(host, jax.ShapeDtypeStruct(shape, wanted), step, np.int32(0) + rounds, kept)
        return drawn

    def skip(self, rounds: Any, kind: str, shapes: Sequence[tuple[int, ...]]) -> None:
        """Pass over ``rounds`` (int, or traced) times the draws of these shapes, uncounted."""
        self._skipped = (rounds, [(kind, shape) for shape in shapes])

    def walk(self, kind: str, function: Walk, arrays: Sequence[Array], reads: int = 0) -> tuple[Array, ...]:
        """``function(z, *arrays)`` with one draw of their shape."""
        del reads
        return function(self.draw(kind, arrays[0].shape, arrays[0].dtype), *arrays)


def sample(key: Array, kind: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """``normal``, ``rademacher`` (+-1) or ``uniform`` [0, 1) draws.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "normal":
        return jax.random.normal(key, shape, dtype)
    if kind == "rademacher":
        return jax.random.rademacher(key, shape, dtype)
    if kind == "uniform":
        return jax.random.uniform(key, shape, dtype)
    raise unknown_kind(kind)


def typed_key(data: Array) -> Array:
    """Wrap two uint32 words as a threefry key inside a jitted function (an eager one costs a compile)."""
    key: Array = jax.random.wrap_key_data(jnp.asarray(data, jnp.uint32), impl="threefry2x32")
    return key
