"""Zeroth-order signSGD in torch (Liu et al. 2019): the sign of a randomised gradient estimate (RGE).

``g = c/q sum_i s_i u_i``, ``s_i`` the slope of the loss along the random direction ``u_i``;
``theta <- theta - lr (sign(g) + weight_decay theta)``, the sign element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvebench.kernels.zeroth_torch import LAWS, RGE
from curvebench.methods.validation import check, whole
from curvebench.oracle.optimizer_torch import LossOptimizer


class ZOSign(LossOptimizer):
    """Zeroth-order signSGD. Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: how far every coordinate moves, >= 0.
        mu: smoothing radius, > 0.
        queries: directions per step, q >= 1.
        central: two-sided differences: 2q losses a step instead of q + 1.
        law: ``'gaussian'``, ``'sphere'`` (unit, times d) or ``'tensor-sphere'`` (each tensor unit, times its size).
        weight_decay: decoupled decay, multiplied by lr, >= 0.
        generator: source of the directions; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: ``step`` without a closure.

    Not ZO-Bench's "ZO-SGD-Sign", which steps along ``sign(s) u`` with Gaussian ``u``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        mu: float = 1e-3,
        queries: int = 8,
        central: bool = False,
        law: str = "gaussian",
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check("ZOSign", "mu", mu, "(0, inf)")
        check("ZOSign", "law", law, LAWS)
        self.estimator = RGE(mu, whole("ZOSign", "queries", queries, "[1, inf)"), central, law)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name, allowed in (("lr", "[0, inf)"), ("weight_decay", "[0, inf)")):
            check("ZOSign", name, group[name], allowed)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it (central: the mean of all losses asked)."""
        oracle = self.ask(closure)
        seen = self.estimator(oracle.loss, self.everything(), partial(oracle.stream("directions").draw, "normal"))
        if not self.usable(seen.gradient):
            return seen.loss
        for group, params, gradient in self.by_group(seen.gradient):
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, torch._foreach_sign(gradient), alpha=-group["lr"])
        return seen.loss
