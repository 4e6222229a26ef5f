"""M-FAC's kernels: seconds of a step and of a set-up, and their ratios to what bounds or precedes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from curvebench.kernels.mfac_torch import SlidingWindow

PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "50"))


class Step:
    """Update and query of the newest gradient, against two passes over the window."""

    params = ([32, 128], [10**5, 10**6])
    param_names = ("m", "d")
    repeat = (8, 50, 30.0)
    warmup_time = 0.2
    timeout = 300.0

    def setup(self, m: int, d: int) -> None:
        import torch

        from curvebench.kernels.mfac_torch import SlidingWindow

        self.ring: SlidingWindow = SlidingWindow(m, d, 1e-3)
        for _ in range(m):
            self.ring.push(torch.randn(d))
        self.gradient: torch.Tensor = torch.randn(d)
        self.out: torch.Tensor = torch.empty(d)

    def time_update(self, m: int, d: int) -> None:
        self.ring.update(self.gradient, self.out)

    def track_ratio(self, m: int, d: int) -> float:
        from curvebench.procedures.mfac_cost import step

        return step(m, d, PAIRS).ratio

    track_ratio.unit = "ours / two passes over the window"  # type: ignore[attr-defined]


class StaticInverse:
    """The static inverse's set-up, against the recursion of matrix-vector products."""

    params = ([(64, 10**5), (128, 10**5)],)
    param_names = ("m, d",)
    timeout = 300.0

    def track_ratio(self, size: tuple[int, int]) -> float:
        from curvebench.procedures.mfac_cost import setup

        return setup(*size, pairs=8).ratio

    track_ratio.unit = "ours / recursion"  # type: ignore[attr-defined]
