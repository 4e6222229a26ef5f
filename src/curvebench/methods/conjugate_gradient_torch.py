"""Conjugate gradients in torch: linear CG on a quadratic, Polak-Ribiere+ with a Newton step along the line elsewhere.

``beta = max(0, g'(g - g_old) / g_old'g_old)``;  ``d <- -g + beta d``, or ``-g`` where that does not descend;
``t = -g'd / d'Hd`` by one Hessian-vector product, halved until Armijo's condition holds;  ``theta <- theta + t d``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvebench.methods.joint_torch import JointOptimizer, finite
from curvebench.methods.validation import check
from curvebench.oracle.dense_torch import flat, views
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT, Query.HVP})


class ConjugateGradient(JointOptimizer):
    """Conjugate gradients: one iteration a step.

    On a quadratic the step length is exact, Polak-Ribiere's beta is Fletcher and Reeves', and the iterates are those of
    linear CG, which ends after at most d steps in exact arithmetic; rounding delays that where the Hessian is ill
    conditioned, unless ``history`` keeps the directions conjugate. Elsewhere it is nonlinear CG. Where the curvature
    along d is not positive the last step length is doubled for a first trial.

    Alone, pass ``step`` a closure that returns the loss and does not call ``backward``.

    Args:
        params: parameters, or one group, float32 or float64.
        restart: the direction is the negative gradient every so many steps; 0: never.
        history: so many last directions and their products with H are kept, and a new direction is made conjugate to
            them; 0: none.
        decrease: Armijo's constant, in (0, 1/2): a line's exact minimum on a quadratic satisfies it.
        max_tries: step lengths tried, >= 1; if none decreases the loss the parameters stay and CG restarts.

    Raises:
        HyperparameterError: a value outside its range.

    Reference: Hestenes and Stiefel 1952; Polak and Ribiere 1969; the truncation of beta at 0 is Powell's.
    """

    ranges: ClassVar[dict[str, str | tuple[str, ...]]] = {
        "restart": "[0, inf)", "decrease": "(0, 0.5)", "max_tries": "[1, inf)"}  # fmt: skip

    def __init__(
        self,
        params: Iterable[Any],
        *,
        restart: int = 0,
        history: int = 0,
        decrease: float = 1e-4,
        max_tries: int = 20,
    ) -> None:
        check(self._name, "history", history, "[0, inf)")
        super().__init__(params, {"restart": restart, "decrease": decrease, "max_tries": max_tries})
        self.history = int(history)
        self.scalars = {"t": 0.0, "since": 0.0}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One gradient, one Hessian-vector product, a loss for every step length tried; returns the loss before it."""
        self._steps += 1
        oracle, live, options = self.points(closure), self.everything(), self.options
        point = oracle.at(needs=_NEEDS)
        g, loss = flat(point.gradient()), point.loss()
        if not finite(g, loss):
            return self.skip(loss)
        d = self._direction(g)
        slope, product = float(g @ d), flat(point.hvp(views(d, live)))
        curvature = float(d @ product)
        if not finite(product, torch.tensor([slope, curvature])):
            return self.skip(loss)
        t = -slope / curvature if curvature > 0 else 2 * self.scalars["t"] or 1 / (1 + float(g.norm()))
        if slope < 0:
            with self.trials() as move:
                t = self.backtrack(oracle, move, d, t=t, loss=float(loss), slope=slope, shrink=0.5,
                                   tries=int(options["max_tries"]), decrease=options["decrease"])  # fmt: skip
            self.scalars["t"] = t or self.scalars["t"]
            self.scalars["since"] = self.scalars["since"] + 1 if t else 0.0
        if self.history and curvature > 0:
            directions, products = self._kept(g)
            slot = int(self.scalars["since"] - 1) % self.history
            directions[slot], products[slot] = d, product
        self.store("gradient", g)
        self.store("direction", d)
        return loss

    def _kept(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The last directions and their products with H, ``[history, d]`` each, zero where there is none yet."""
        state = self.state[self.everything()[0]]
        for name in ("directions", "products"):
            if name not in state:
                state[name] = like.new_zeros(self.history, len(like))
        return state["directions"], state["products"]

    def _direction(self, g: Tensor) -> Tensor:
        old, direction, restart = self.vector("gradient"), self.vector("direction"), int(self.options["restart"])
        since = int(self.scalars["since"])
        if old is None or direction is None or since == 0 or (restart and since % restart == 0):
            return self._restarted(g)
        squared = float(old @ old)
        beta = max(0.0, float(g @ (g - old)) / squared) if squared > 0 else 0.0
        d = beta * direction - g
        if self.history:
            directions, products = self._kept(g)
            curvatures = (directions * products).sum(1)
            d -= directions.T @ torch.where(curvatures > 0, products @ d / curvatures, 0)
        return d if float(g @ d) < 0 else self._restarted(g)

    def _restarted(self, g: Tensor) -> Tensor:
        if self.history:
            for kept in self._kept(g):
                kept.zero_()
        return -g
