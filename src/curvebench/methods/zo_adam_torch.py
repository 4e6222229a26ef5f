"""Zeroth-order Adam in torch: Adam on a randomised gradient estimate (RGE).

``g = c/q sum_i s_i u_i``, ``s_i`` the slope of the loss along the random direction ``u_i``;
``m <- b1 m + (1-b1) g``;  ``v <- b2 v + (1-b2) g^2``;
``theta <- theta - lr ( m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + weight_decay theta )``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.kernels.descent_torch import adam_
from curvebench.kernels.zeroth_torch import LAWS, RGE
from curvebench.methods.validation import check, whole
from curvebench.oracle.optimizer_torch import LossOptimizer


class ZOAdam(LossOptimizer):
    """Zeroth-order Adam. Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0.
        betas: decay rates ``(b1, b2)`` of the two moments, each in [0, 1).
        eps: added outside the root, > 0.
        mu: smoothing radius, > 0.
        queries: directions per step, q >= 1.
        central: two-sided differences: 2q losses a step instead of q + 1.
        law: ``'gaussian'``, ``'sphere'`` (unit, times d) or ``'tensor-sphere'`` (each tensor unit, times its size).
        weight_decay: decoupled decay, multiplied by lr, >= 0.
        generator: source of the directions; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter of half precision, in which the averages stand still.
        CurvebenchError: ``step`` without a closure.

    Differs from ZO-AdaMM (Chen et al. 2019): bias correction, and no running maximum of ``v``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        mu: float = 1e-3,
        queries: int = 8,
        central: bool = False,
        law: str = "gaussian",
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check("ZOAdam", "mu", mu, "(0, inf)")
        check("ZOAdam", "law", law, LAWS)
        self.estimator = RGE(mu, whole("ZOAdam", "queries", queries, "[1, inf)"), central, law)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name, allowed in (("lr", "[0, inf)"), ("eps", "(0, inf)"), ("weight_decay", "[0, inf)")):
            check("ZOAdam", name, group[name], allowed)
        if len(group["betas"]) != 2:
            raise HyperparameterError(f"ZOAdam: betas = {group['betas']!r}: must be two numbers")
        for p in group["params"]:
            if p.dtype in (torch.float16, torch.bfloat16):
                raise TypeError(
                    f"ZOAdam: a parameter has dtype {p.dtype}: must be float32 or float64 (beta2 = 0.999 rounds to 1 "
                    "in bfloat16, eps = 1e-8 to 0 in float16)"
                )
        for name, beta in zip(("beta1", "beta2"), group["betas"], strict=True):
            check("ZOAdam", name, beta, "[0, 1)")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it (central: the mean of all losses asked)."""
        oracle = self.ask(closure)
        seen = self.estimator(oracle.loss, self.everything(), partial(oracle.stream("directions").draw, "normal"))
        if not self.usable(seen.gradient):
            return seen.loss
        for group, params, gradient in self.by_group(seen.gradient):
            group["steps"] = group.get("steps", 0) + 1  # a group that came later has younger averages
            adam_(params, gradient, self.slots(params, "m"), self.slots(params, "v"), t=group["steps"], lr=group["lr"],
                  betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"])  # fmt: skip
        return seen.loss
