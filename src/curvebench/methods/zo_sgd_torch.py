"""Zeroth-order SGD in torch: SGD on a randomised gradient estimate (RGE).

``g = c/q sum_i s_i u_i``, ``s_i`` the slope of the loss along the random direction ``u_i`` (forward or central
difference over ``mu``);  ``b <- momentum b + g + weight_decay theta``;  ``theta <- theta - lr b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvebench.kernels.descent_torch import momentum_
from curvebench.kernels.zeroth_torch import LAWS, RGE
from curvebench.methods.validation import check, whole
from curvebench.oracle.optimizer_torch import LossOptimizer


class ZOSGD(LossOptimizer):
    """Zeroth-order SGD. Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0; the largest safe one is about ``q/(d+q-1)`` of SGD's.
        mu: smoothing radius, > 0.
        queries: directions per step, q >= 1.
        central: two-sided differences: 2q losses a step instead of q + 1.
        law: ``'gaussian'``, ``'sphere'`` (unit, times d) or ``'tensor-sphere'`` (each tensor unit, times its size).
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.
        generator: source of the directions; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: ``step`` without a closure.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-2,
        mu: float = 1e-3,
        queries: int = 8,
        central: bool = False,
        law: str = "gaussian",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check("ZOSGD", "mu", mu, "(0, inf)")
        check("ZOSGD", "law", law, LAWS)
        self.estimator = RGE(mu, whole("ZOSGD", "queries", queries, "[1, inf)"), central, law)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name, allowed in (("lr", "[0, inf)"), ("momentum", "[0, 1)"), ("weight_decay", "[0, inf)")):
            check("ZOSGD", name, group[name], allowed)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it (central: the mean of all losses asked)."""
        oracle = self.ask(closure)
        seen = self.estimator(oracle.loss, self.everything(), partial(oracle.stream("directions").draw, "normal"))
        if not self.usable(seen.gradient):
            return seen.loss
        for group, params, gradient in self.by_group(seen.gradient):
            buffers = self.slots(params, "momentum") if group["momentum"] else []
            momentum_(params, gradient, buffers, lr=group["lr"], momentum=group["momentum"],
                      weight_decay=group["weight_decay"])  # fmt: skip
        return seen.loss
