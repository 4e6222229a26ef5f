"""Zeroth-order SGD with coordinate-wise gradients (CGE) in torch: one loss per parameter and step.

``g_i = (f(theta + mu e_i) - f(theta)) / mu`` for each active coordinate i, 0 elsewhere (or central differences);
``b <- momentum b + g + weight_decay theta``;  ``theta <- theta - lr b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.kernels.descent_torch import momentum_
from curvebench.kernels.zeroth_torch import coordinate_gradient
from curvebench.methods.validation import check
from curvebench.oracle.optimizer_torch import LossOptimizer


class ZOCGE(LossOptimizer):
    """SGD on coordinate-wise gradient estimates. Alone, pass ``step`` a closure that returns the loss.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0; SGD's, for the estimate has no variance of its own.
        mu: smoothing radius, > 0.
        central: two-sided differences: 2|S| losses a step instead of |S| + 1.
        mask: per parameter, in order, True where a coordinate is active, or None for all; None: everything.
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.

    Raises:
        HyperparameterError: a value outside its range, or a mask that does not fit the parameters.
        CurvebenchError: ``step`` without a closure.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-1,
        mu: float = 1e-3,
        central: bool = False,
        mask: Sequence[Tensor | None] | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        check("ZOCGE", "mu", mu, "(0, inf)")
        self.mu, self.central, self.mask = mu, central, mask
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        given = [p for group in self.param_groups for p in group["params"]]
        if mask is not None and (
            len(mask) != len(given)
            or any(m is not None and m.shape != p.shape for p, m in zip(given, mask, strict=True))
        ):
            raise HyperparameterError("ZOCGE: mask: must be one per parameter, of its shape, or None")

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name, allowed in (("lr", "[0, inf)"), ("momentum", "[0, 1)"), ("weight_decay", "[0, inf)")):
            check("ZOCGE", name, group[name], allowed)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it (central: the mean of all losses asked)."""
        oracle, everything, masks = self.ask(closure), self.everything(), self.mask
        if masks is not None:
            given = [p for group in self.param_groups for p in group["params"]]
            chosen = dict(zip(given, masks, strict=True))
            masks = [chosen[p] for p in everything]
        seen = coordinate_gradient(oracle.loss, everything, mu=self.mu, central=self.central, masks=masks)
        if not self.usable(seen.gradient):
            return seen.loss
        for group, params, gradient in self.by_group(seen.gradient):
            buffers = self.slots(params, "momentum") if group["momentum"] else []
            momentum_(params, gradient, buffers, lr=group["lr"], momentum=group["momentum"],
                      weight_decay=group["weight_decay"])  # fmt: skip
        return seen.loss
