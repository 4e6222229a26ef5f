"""Newton's method in torch, the Hessian formed from its products, and its diagonal sibling: references, not contenders.

Newton: ``theta <- theta - lr (H + damping I)^-1 g``, H ``[d, d]`` column by column from d Hessian-vector products.
Diagonal Newton: ``theta_i <- theta_i - lr g_i / (H_ii + damping)``, the diagonal exact, from as many products.
``curvature = 'absolute'``: ``|H|`` (absolute eigenvalues; absolute diagonal) in place of H: no longer drawn to saddles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvebench.kernels.newton_torch import CURVATURES, diagonal_direction, newton_direction
from curvebench.methods.joint_torch import JointOptimizer, finite
from curvebench.oracle.dense_torch import dense, diagonal, flat
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT, Query.HVP})


class DiagonalNewton(JointOptimizer):
    """Newton's method with the exact diagonal of the Hessian.

    Alone, pass ``step`` a closure that returns the loss and does not call ``backward``.

    Args:
        params: parameters, or one group, float32 or float64.
        lr: step size, >= 0.
        damping: added to the diagonal, >= 0.
        curvature: ``'hessian'``, or ``'absolute'``: its absolute values.
        max_dimension: more parameters are refused: a step takes as many products.

    Raises:
        HyperparameterError: a value outside its range.
        UnmetNeedError: too many parameters.

    Becker and LeCun 1989 use an approximation of this diagonal that one backward pass gives; here it is exact.
    """

    ranges: ClassVar[dict[str, str | tuple[str, ...]]] = {
        "lr": "[0, inf)", "damping": "[0, inf)", "curvature": CURVATURES}  # fmt: skip

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1.0,
        damping: float = 0.0,
        curvature: str = "hessian",
        max_dimension: int = 4096,
    ) -> None:
        super().__init__(params, {"lr": lr, "damping": damping, "curvature": curvature}, dense=True,
                         max_dimension=max_dimension)  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step of one gradient and d Hessian-vector products; returns the loss before it."""
        self._steps += 1
        oracle = self.points(closure)
        point = oracle.at(needs=_NEEDS)
        g = flat(point.gradient())
        if not finite(g):
            return self.skip(point.loss())
        direction = self._direction(oracle, point, g)
        if direction is None or not finite(direction):
            return self.skip(point.loss())
        with self.trials() as move:
            move(direction, -self.options["lr"])
        return point.loss()

    def _direction(self, oracle: Any, point: Any, g: Tensor) -> Tensor | None:
        D = diagonal(point.hvps, self.everything())
        oracle.tally(factors=1)
        return diagonal_direction(D, g, self.options["damping"], self.options["curvature"])


class Newton(DiagonalNewton):
    """Newton's method with the whole Hessian. Undamped its iterates do not depend on the parameters' coordinates.

    Alone, pass ``step`` a closure that returns the loss and does not call ``backward``. An indefinite Hessian is used
    as it is, so the undamped method goes to the nearest stationary point, of whatever kind.

    Args:
        params: parameters, or one group, float32 or float64.
        lr: step size, >= 0; 1 is Newton's.
        damping: multiple of the identity added to the Hessian, >= 0.
        curvature: ``'hessian'``, or ``'absolute'``: with its eigenvalues' absolute values (Dauphin et al. 2014).
        max_dimension: more parameters are refused: the matrix takes d^2 numbers, its factorisation order d^3 flops.

    Raises:
        HyperparameterError: a value outside its range.
        UnmetNeedError: too many parameters.
    """

    def _direction(self, oracle: Any, point: Any, g: Tensor) -> Tensor | None:
        H = dense(point.hvps, self.everything())
        oracle.tally(factors=1)
        if not finite(H):
            return None
        oracle.tally(inverses=1)
        return newton_direction(H, g, self.options["damping"], self.options["curvature"])
