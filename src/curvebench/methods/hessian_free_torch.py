"""Hessian-free optimisation in torch (Martens 2010): conjugate gradients on damped Gauss-Newton products.

``(G + damping I) h = -g`` by at most ``cg_steps`` iterations from ``decay`` times the last ``h``; of the iterates kept
on the way, back from the last one, the first whose predecessor has no smaller loss; ``theta <- theta + t h``;
``rho = (f(theta + h) - f(theta)) / (g'h + h'Gh/2)``: ``damping *= 3/2`` below 1/4, ``*= 2/3`` above 3/4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvebench.kernels.conjugate_gradient_torch import Solution, conjugate_gradient
from curvebench.methods.joint_torch import JointOptimizer, finite
from curvebench.methods.levenberg_marquardt_torch import LARGEST, SMALLEST
from curvebench.methods.validation import check
from curvebench.oracle.dense_torch import flat, views
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT, Query.GGNVP})


class HessianFree(JointOptimizer):
    """Truncated Gauss-Newton with Martens' heuristics: no matrix is formed, so it scales with the model.

    Alone, pass ``step`` a closure that returns ``(loss, outputs)`` and does not call ``backward``.

    Args:
        params: parameters, or one group, float32 or float64.
        damping: at the first step, > 0.
        cg_steps: iterations of conjugate gradients at most, >= 1.
        tolerance: they stop when the last ``k = max(10, i/10)`` of i gained less than ``k tolerance`` of the whole; 0:
            never.
        decay: of the last step's solution, at which they start, in [0, 1].
        decrease: Armijo's constant, in (0, 1).
        max_tries: step lengths tried, >= 1, each 0.8 of the one before; if none decreases the loss the parameters stay.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: ``step`` without a closure that returns the outputs.

    Reference: Martens, ICML 2010. Differs from the paper: gradient, products and losses are all of the step's batch;
    the gain compares with the model without damping; no preconditioner.
    """

    ranges: ClassVar[dict[str, str | tuple[str, ...]]] = {
        "cg_steps": "[1, inf)", "tolerance": "[0, inf)", "decay": "[0, 1]", "decrease": "(0, 1)",
        "max_tries": "[1, inf)"}  # fmt: skip

    def __init__(
        self,
        params: Iterable[Any],
        *,
        damping: float = 1.0,
        cg_steps: int = 50,
        tolerance: float = 5e-4,
        decay: float = 0.95,
        decrease: float = 1e-2,
        max_tries: int = 30,
    ) -> None:
        check(self._name, "damping", damping, "(0, inf)")
        super().__init__(params, {"cg_steps": cg_steps, "tolerance": tolerance, "decay": decay, "decrease": decrease,
                                  "max_tries": max_tries})  # fmt: skip
        self.scalars = {"damping": float(damping)}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One gradient, up to ``cg_steps + 1`` Gauss-Newton products, some losses; returns the loss before it."""
        self._steps += 1
        oracle, options = self.points(closure), self.options
        point = oracle.at(needs=_NEEDS)
        g, loss = flat(point.gradient()), point.loss()
        if not finite(g, loss):
            return self.skip(loss)
        found = self.solve(point, g)
        if found.status == "broken" or not finite(found.kept[-1]):
            return self.skip(loss)
        self.store("direction", found.kept[-1])
        with self.trials() as move:
            best, reached = self._best(oracle, move, found.kept)
            h = found.kept[best]
            model = found.phi[best] - self.scalars["damping"] / 2 * float(h @ h)
            self._follow((reached - float(loss)) / model if model < 0 else 0.0)
            slope = float(g @ h)
            if slope < 0:
                self.backtrack(oracle, move, h, t=1.0, loss=float(loss), slope=slope, shrink=0.8,
                               tries=int(options["max_tries"]), decrease=options["decrease"])  # fmt: skip
            else:
                move(h, 0.0)
        return loss

    def solve(self, point: Any, g: Tensor) -> Solution:
        """Conjugate gradients on ``(G + damping I) h = -g``."""
        live, options, damping = self.everything(), self.options, self.scalars["damping"]
        last = self.vector("direction")
        start = torch.zeros_like(g) if last is None else options["decay"] * last

        def product(v: Tensor) -> Tensor:
            return flat(point.ggnvp(views(v, live))).add_(v, alpha=damping)

        return conjugate_gradient(product, -g, start, steps=int(options["cg_steps"]), tolerance=options["tolerance"])

    def _best(self, oracle: Any, move: Callable[[Tensor, float], None], kept: list[Tensor]) -> tuple[int, float]:
        """Walk back from the last iterate while the loss falls: the iterate's index, and its loss."""
        best = len(kept) - 1
        move(kept[best], 1.0)
        reached = float(oracle.loss())
        while best > 0:
            move(kept[best - 1], 1.0)
            loss = float(oracle.loss())
            if not loss < reached:
                break
            best, reached = best - 1, loss
        return best, reached

    def _follow(self, gain: float) -> None:
        factor = 2 / 3 if gain > 0.75 else 1.0 if gain >= 0.25 else 1.5
        self.scalars["damping"] = min(max(self.scalars["damping"] * factor, SMALLEST), LARGEST)

    @property
    def damping(self) -> float:
        """The damping of the next step."""
        return self.scalars["damping"]
