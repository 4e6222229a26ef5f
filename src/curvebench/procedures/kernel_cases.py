"""One call of every kernel at a size ``n``, its float64 reference and, where one is known, its floor.

Each case says of which file of ``kernels/`` it is; the test of this module holds that no file is without a case. ``n``
is the side of the matrices or the number of parameters as the case says, so that doubling it shows the scaling law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], Any]
ROWS, WINDOW = 64, 16


@dataclass(frozen=True)
class Ready:
    """A case that is set up.

    Args:
        call: the kernel; what it returns is an array, or a tuple of arrays.
        reference: the same in float64 NumPy on the same inputs, or None: too slow at any useful size.
        floor: work that the kernel cannot do without, in the same framework, or None.
    """

    call: Call
    reference: Call | None = None
    floor: Call | None = None


@dataclass(frozen=True)
class Case:
    """A kernel: ``file`` of ``kernels/``, the framework, and how it is set up at a size on a device."""

    file: str
    framework: str
    build: Callable[[int, Any], Ready]
    largest_reference: int = 10**9
    """The largest ``n`` at which the reference takes less than a second."""


def error(ready: Ready) -> float:
    """Largest deviation of the kernel from its reference, over the reference's largest element."""
    if ready.reference is None:
        raise ValueError("the case has no reference")
    worst, scale = 0.0, 0.0
    for ours, truth in zip(_arrays(ready.call()), _arrays(ready.reference()), strict=True):
        worst = max(worst, float(np.max(np.abs(ours - truth))))
        scale = max(scale, float(np.max(np.abs(truth))))
    return worst / scale


def _arrays(value: Any) -> list[Any]:
    found = value if isinstance(value, (tuple, list)) else [value]
    return [np.asarray(item.detach().cpu() if hasattr(item, "detach") else item, np.float64) for item in found]


def normal(*shape: int, seed: int = 0) -> Any:
    """Gaussian float32 input."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(n: int, seed: int = 0) -> Any:
    """A symmetric positive definite float32 matrix ``[n, n]`` with a bounded condition number."""
    x = normal(2 * n, n, seed=seed)
    return (x.T @ x / (2 * n) + 0.1 * np.eye(n, dtype=np.float32)).astype(np.float32)


def cases() -> dict[str, Case]:
    """All cases by ``file/what``."""
    from curvebench.procedures import kernel_cases_jax, kernel_cases_torch

    return {**kernel_cases_torch.CASES, **kernel_cases_jax.CASES}
