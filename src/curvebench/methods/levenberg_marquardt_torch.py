"""Levenberg-Marquardt in torch: damped Gauss-Newton steps whose damping follows the gain ratio.

``h = -(G + damping D)^-1 g``, G the Gauss-Newton matrix ``[d, d]``, D the identity or G's diagonal;
``rho = (f(theta) - f(theta + h)) / -(g'h + h'Gh/2)``. ``rho > 0``: ``theta <- theta + h``,
``damping *= max(1/3, 1 - (2 rho - 1)^3)``, ``growth = 2``. Else ``damping *= growth``, ``growth *= 2``, and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvebench.kernels.newton_torch import spd_solve
from curvebench.methods.joint_torch import JointOptimizer, finite
from curvebench.methods.validation import check
from curvebench.oracle.dense_torch import dense, flat
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT, Query.GGNVP})
SCALINGS = ("identity", "diagonal")
SMALLEST, LARGEST = 1e-15, 1e15
"""The damping stays between these: beyond them it is lost in the matrix, or the step in the parameters."""


class LevenbergMarquardt(JointOptimizer):
    """Levenberg-Marquardt with Nielsen's rule for the damping; for any loss of a model's outputs, not only squares.

    Alone, pass ``step`` a closure that returns ``(loss, outputs)`` and does not call ``backward``.

    The matrix comes from d Gauss-Newton products, 128 in one batched backward. A Jacobian by ``jacrev`` takes a
    backward of the whole batch for every single output instead.

    Args:
        params: parameters, or one group, float32 or float64.
        damping: at the first step, > 0.
        scaling: ``'identity'``; ``'diagonal'``: damping is relative to G's diagonal (Marquardt), which makes the step
            independent of the parameters' units.
        max_tries: dampings tried in a step, >= 1; if none decreases the loss the parameters stay.
        max_dimension: more parameters are refused.

    Raises:
        HyperparameterError: a value outside its range.
        UnmetNeedError: too many parameters.
        CurvebenchError: ``step`` without a closure that returns the outputs.

    Reference: Marquardt 1963; the rule for the damping is Nielsen's (1999). Loss and gain are of the step's batch.
    """

    ranges: ClassVar[dict[str, str | tuple[str, ...]]] = {"scaling": SCALINGS, "max_tries": "[1, inf)"}

    def __init__(
        self,
        params: Iterable[Any],
        *,
        damping: float = 1e-3,
        scaling: str = "identity",
        max_tries: int = 10,
        max_dimension: int = 4096,
    ) -> None:
        check(self._name, "damping", damping, "(0, inf)")
        super().__init__(params, {"scaling": scaling, "max_tries": max_tries}, dense=True, max_dimension=max_dimension)
        self.scalars = {"damping": float(damping), "growth": 2.0}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step: a gradient, d Gauss-Newton products, a loss for every damping tried; returns the loss before it."""
        self._steps += 1
        oracle = self.points(closure)
        point = oracle.at(needs=_NEEDS)
        g, loss = flat(point.gradient()), point.loss()
        if not finite(g, loss):
            return self.skip(loss)
        G = dense(point.ggnvps, self.everything())
        oracle.tally(factors=1)
        if not finite(G):
            return self.skip(loss)
        D = G.diagonal().diag() if self.options["scaling"] == "diagonal" else None
        with self.trials() as move:
            for _ in range(int(self.options["max_tries"])):
                oracle.tally(inverses=1)
                h = spd_solve(G, D, self.scalars["damping"], -g)
                if h is not None and self._accept(oracle, move, float(loss), g, G, h):
                    return loss
                self._change(self.scalars["growth"], self.scalars["growth"] * 2)
            move(g, 0.0)
        return loss

    def _accept(
        self, oracle: Any, move: Callable[[Tensor, float], None], loss: float, g: Tensor, G: Tensor, h: Tensor
    ) -> bool:
        """Whether the step h, at which the parameters are now, decreases the loss; the damping is then changed."""
        promised = -float(g @ h + h @ (G @ h) / 2)
        if not promised > 0:  # the gradient is zero, or the step is lost in rounding
            return False
        move(h, 1.0)
        gain = (loss - float(oracle.loss())) / promised
        if not gain > 0:
            return False
        self._change(max(1 / 3, 1 - (2 * min(gain, 1e6) - 1) ** 3), 2.0)
        return True

    def _change(self, factor: float, growth: float) -> None:
        damping = min(max(self.scalars["damping"] * factor, SMALLEST), LARGEST)
        self.scalars = {"damping": damping, "growth": min(growth, LARGEST)}

    @property
    def damping(self) -> float:
        """The damping that the next step tries first."""
        return self.scalars["damping"]
