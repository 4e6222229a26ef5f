"""The Kronecker family: steps beside SGD's, MKOR beside its own matrix products, parts of a step by layer width."""

from __future__ import annotations

import os
from collections.abc import Callable

PAIRS = int(os.environ.get("CURVEBENCH_PAIRS", "50"))


class Step:
    """A step with factors every step and inverses every 10, against an SGD step."""

    params = (["resnet20", "encoder"], ["kfac", "ekfac", "mkor"])
    param_names = ("workload", "method")
    timeout = 1200.0

    def track_ratio(self, workload: str, method: str) -> float:
        from curvebench.procedures.kronecker_cost import step

        return step(workload, method, PAIRS).ratio.ratio

    track_ratio.unit = "ours / SGD"  # type: ignore[attr-defined]


class Products:
    """MKOR on 3 x Linear(1024), 128 rows, against its two products a layer."""

    params = ([True, False],)
    param_names = ("bias",)
    timeout = 300.0

    def track_ratio(self, bias: bool) -> float:
        from curvebench.procedures.kronecker_cost import mkor_beside_its_products

        return mkor_beside_its_products(1024, 128, PAIRS, bias=bias).ratio

    track_ratio.unit = "ours / JG W JA"  # type: ignore[attr-defined]


class Parts:
    """Seconds of one part of a step, by the width of the layer."""

    params = (
        ["MKOR update of a factor", "K-FAC eigenbasis of a factor", "K-FAC inverse of a factor",
         "MKOR preconditioning of a layer", "K-FAC preconditioning of a layer"],
        [256, 512, 1024],
    )  # fmt: skip
    param_names = ("part", "width")
    repeat = (8, 20, 20.0)
    warmup_time = 0.2
    timeout = 300.0

    def setup(self, part: str, width: int) -> None:
        from curvebench.procedures.kronecker_cost import pieces

        self.call: Callable[[], object] = pieces(width)[part]()

    def time_part(self, part: str, width: int) -> None:
        self.call()
