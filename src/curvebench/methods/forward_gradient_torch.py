"""Forward gradients in torch (Baydin et al. 2022): SGD on ``(grad f . v) v``, the derivative exact by forward mode.

``g = 1/q sum_i (grad f . v_i) v_i``, ``v_i ~ N(0, I)``;  ``b <- momentum b + g + weight_decay theta``;
``theta <- theta - lr b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.kernels.descent_torch import momentum_
from curvebench.kernels.zeroth_torch import direction
from curvebench.methods.validation import check, whole
from curvebench.oracle.forward_torch import closure_jvp
from curvebench.oracle.optimizer_torch import LossOptimizer


class ForwardGradient(LossOptimizer):
    """SGD on forward gradients: no backward pass, no graph, no smoothing radius.

    Alone, pass ``step`` a closure that returns the loss at the live parameters and does not call ``backward``; it runs
    once per direction, with the parameters carrying a tangent.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0; the largest safe one is about ``q/(d+q+1)`` of SGD's.
        queries: directions per step, q >= 1.
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
        queries: int = 1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        self.queries = whole("ForwardGradient", "queries", queries, "[1, inf)")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name, allowed in (("lr", "[0, inf)"), ("momentum", "[0, 1)"), ("weight_decay", "[0, inf)")):
            check("ForwardGradient", name, group[name], allowed)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step of q directional derivatives; returns the loss before it when used alone."""
        oracle, everything, loss = self.ask(closure), self.everything(), None
        stream = oracle.stream("directions")
        total = [torch.zeros_like(p) for p in everything]
        for _ in range(self.queries):
            v = direction(everything, lambda shape: stream.draw("normal", shape), "gaussian")
            if self.oracle is not None:
                slope = self.oracle.at().jvp(v)
            else:
                loss, slope = closure_jvp(closure, everything, v)
            torch._foreach_add_(total, v, alpha=float(slope) / self.queries)
        if not self.usable(total):
            return loss
        for group, params, gradient in self.by_group(total):
            buffers = self.slots(params, "momentum") if group["momentum"] else []
            momentum_(params, gradient, buffers, lr=group["lr"], momentum=group["momentum"],
                      weight_decay=group["weight_decay"])  # fmt: skip
        return loss
