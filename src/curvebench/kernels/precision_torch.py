"""Arithmetic in the tensors' own precision, whatever the user allows elsewhere: no TF32, no bfloat16, no autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch

_FULL = ("ieee", "none")
_NOTHING = nullcontext()


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Products of float32 matrices are float32 inside; the process's settings are restored at the end."""
    if is_full(device.type):
        return _NOTHING  # ten times cheaper than setting what is set
    return _changed(device)


def is_full(kind: str) -> bool:
    """Whether products on a device of this type are in full precision as it is."""
    return not torch.is_autocast_enabled(kind) and _is_full(kind)


@cache
def _backends() -> tuple[Any, ...]:
    """The backends with a setting of their own (torch >= 2.9), else nothing."""
    found: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return found if all(hasattr(backend, "fp32_precision") for backend in found) else ()


def _is_full(kind: str) -> bool:
    """Of the backend that multiplies on such a device."""
    if backends := _backends():
        return bool(backends[kind == "cpu"].fp32_precision in _FULL)
    return torch.get_float32_matmul_precision() == "highest"


@contextmanager
def _changed(device: torch.device) -> Iterator[None]:
    backends = _backends()
    before = [b.fp32_precision for b in backends] if backends else [torch.get_float32_matmul_precision()]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        if not backends:
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, value in zip(backends, before, strict=False):
            backend.fp32_precision = value
        if not backends:
            torch.set_float32_matmul_precision(before[0])
