"""What M-FAC costs: a step beside two passes over its window, a set-up beside the authors' recursion, scaling laws.

Shapes: ``m`` gradients in the window, ``d`` parameters, all float32. ``python -m curvebench.procedures.mfac_cost``
measures the scaling laws; the ratios are those of ``tests/peers/test_mfac.py`` and ``benchmarks/mfac.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from curvebench.statistics.pairs import Ratio, interleave

STEP_SIZES = ((32, 10**5), (128, 10**5), (32, 10**6), (128, 10**6))
"""``(m, d)`` at which a step is compared with its floor."""
DAMPING = 1e-3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def step(m: int, d: int, pairs: int, threads: int = 2, clock: str = "wall") -> Ratio:
    """Update and query of the newest gradient against ``G @ g`` and ``G.T @ c``.

    Args:
        m: rows of the window.
        d: parameters.
        pairs: interleaved measurements of each side.
        threads: intra-op threads of torch.
        clock: ``wall``, or ``cpu``: seconds of this process, which a busy machine disturbs less.
    """
    import torch

    from curvebench.kernels.mfac_torch import SlidingWindow

    torch.set_num_threads(threads)
    ring, gradient, out = SlidingWindow(m, d, DAMPING), torch.randn(d), torch.empty(d)
    for _ in range(m):
        ring.push(torch.randn(d))
    window, weights = ring.gradients, torch.randn(m)

    def ours() -> object:
        return ring.update(gradient, out)

    def floor() -> object:
        return window @ gradient, window.T @ weights

    for _ in range(3):
        ours()
        floor()
    return interleave(ours, floor, pairs, CLOCKS[clock])


def setup(m: int, d: int, pairs: int, threads: int = 2, clock: str = "wall") -> Ratio:
    """The static inverse's set-up against the recursion of matrix-vector products; arguments as in :func:`step`."""
    import torch
    from torch import Tensor

    from curvebench.kernels.mfac_static_torch import StaticInverse

    torch.set_num_threads(threads)
    gradients = torch.randn(m, d)

    def recursion() -> Tensor:
        rows, delta = gradients.clone(), torch.empty(m)
        for i in range(m):
            row = gradients[i]
            rows[i] = row / DAMPING - ((rows[:i] @ row) / delta[:i]) @ rows[:i]
            delta[i] = m + row @ rows[i]
        return rows

    return interleave(lambda: StaticInverse(gradients, DAMPING), recursion, pairs, CLOCKS[clock])


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of ``log seconds`` over ``log size`` by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def scaling(repeats: int = 5, threads: int = 1) -> dict[str, tuple[float, list[tuple[int, int, float]]]]:
    """Fitted exponents of a query and of a set-up in ``d`` and in ``m``.

    Returns:
        By name: the exponent, and ``(m, d, least CPU seconds of the repeats)`` of every point.
    """
    import torch

    from curvebench.kernels.mfac_static_torch import StaticInverse
    from curvebench.kernels.mfac_torch import SlidingWindow

    torch.set_num_threads(threads)

    def query(m: int, d: int) -> Callable[[], object]:
        ring, vector = SlidingWindow(m, d, DAMPING), torch.randn(d)
        for _ in range(m):
            ring.push(torch.randn(d))
        return lambda: ring.solve(vector)

    def static(m: int, d: int) -> Callable[[], object]:
        gradients = torch.randn(m, d)
        return lambda: StaticInverse(gradients, DAMPING)

    plan = {
        "query in d": (query, [(64, d) for d in (10**5, 2 * 10**5, 4 * 10**5, 8 * 10**5)], 1),
        "query in m": (query, [(m, 2 * 10**5) for m in (32, 64, 128, 256)], 0),
        "set-up in d": (static, [(64, d) for d in (10**5, 2 * 10**5, 4 * 10**5, 8 * 10**5)], 1),
        "set-up in m": (static, [(m, 10**5) for m in (64, 128, 256, 512)], 0),
    }
    out = {}
    for name, (make, sizes, axis) in plan.items():
        points = [(m, d, _least(make(m, d), repeats)) for m, d in sizes]
        out[name] = exponent([size[axis] for size in sizes], [seconds for _, _, seconds in points]), points
    return out


def _least(call: Callable[[], object], repeats: int) -> float:
    call()
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return min(taken)


if __name__ == "__main__":
    for law, (slope, points) in scaling().items():
        print(f"{law}: exponent {slope:.2f};", ", ".join(f"({m}, {d}) {1e3 * s:.1f} ms" for m, d, s in points))
