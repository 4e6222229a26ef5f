"""Streams of random probes in jax: threefry keys, or the reference Philox bits shared with torch."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from curvebench.oracle.draws import KINDS, ReferenceStream, unknown_kind


class Stream(Protocol):
    """A named, rewindable sequence of draws."""

    def draw(self, kind: str, shape: tuple[int, ...]) -> Array:
        """New array of draws."""
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
        self._position = 0

    def draw(self, kind: str, shape: tuple[int, ...]) -> Array:
        """New array of the parameters' dtype."""
        self._count(int(np.prod(shape, dtype=np.int64)))
        key = jax.random.fold_in(self._key, self._position)
        self._position += 1
        return sample(key, kind, shape, self._dtype)


class PhiloxStream:
    """The reference bits, fetched from the host at run time since the step is known only then. For tests."""

    def __init__(self, run_seed: int, step: Array, name: str, dtype: Any, count: Callable[[int], None]) -> None:
        self._run_seed = run_seed
        self._step = step
        self._name = name
        self._dtype = dtype
        self._count = count
        self._drawn: list[tuple[str, tuple[int, ...]]] = []

    def draw(self, kind: str, shape: tuple[int, ...]) -> Array:
        """New array of the parameters' dtype."""
        if kind not in KINDS:  # at once, not when the program runs
            raise unknown_kind(kind)
        self._count(int(np.prod(shape, dtype=np.int64)))
        before = tuple(self._drawn)
        self._drawn.append((kind, shape))

        def host(step: Any) -> np.ndarray[Any, Any]:
            stream = ReferenceStream(self._run_seed, int(step), self._name)
            for earlier in before:
                stream.draw(*earlier)
            return stream.draw(kind, shape).astype(self._dtype)

        drawn: Array = jax.pure_callback(host, jax.ShapeDtypeStruct(shape, self._dtype), self._step)
        return drawn


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
