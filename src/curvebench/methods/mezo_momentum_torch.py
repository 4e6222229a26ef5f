"""MeZO with momentum in torch (Malladi et al. 2023): heavy-ball SGD on the two-point estimate.

``z ~ N(0, I)``;  ``c = (f(theta + eps z) - f(theta - eps z)) / (2 eps)``;
``b <- momentum b + c z + weight_decay theta``;  ``theta <- theta - lr b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvebench.kernels.replay_torch import Probe, noise, part, refuse_half
from curvebench.methods.validation import check
from curvebench.oracle.optimizer_torch import LossOptimizer


class MeZOMomentum(LossOptimizer):
    """MeZO with a momentum buffer. Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0.
        eps: half the distance between the two evaluations, > 0.
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.
        restore: ``'replay'``: walk back by drawing the noise again, fused with the update (drift of rounding size,
            refused in half precision); ``'copy'``: keep a copy of the weights during the step, bit-exact.
        generator: source of the noise; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
        CurvebenchError: ``step`` without a closure.

    Differs from the paper's variant without memory, which rebuilds the buffer from all past seeds at a cost that grows
    with the step: the buffer is stored, as the authors' released flag (``zero_order_use_trainer_optim``) does.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-6,
        eps: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        restore: str = "replay",
        generator: torch.Generator | None = None,
    ) -> None:
        check("MeZOMomentum", "eps", eps, "(0, inf)")
        check("MeZOMomentum", "restore", restore, ("replay", "copy"))
        self.eps, self.restore = eps, restore
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range, and half precision with ``restore='replay'``."""
        for name, allowed in (("lr", "[0, inf)"), ("momentum", "[0, 1)"), ("weight_decay", "[0, inf)")):
            check("MeZOMomentum", name, group[name], allowed)
        if self.restore == "replay":
            refuse_half("MeZOMomentum", group["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step of two losses; returns their mean."""
        oracle, everything = self.ask(closure), self.everything()
        owner = self.owners()

        def draws() -> Iterator[tuple[int, slice | None, Tensor]]:
            return noise(everything, partial(oracle.stream("mezo").draw, "normal"))

        def direction() -> Iterator[tuple[Tensor, Tensor]]:
            return ((part(everything[i], rows), z) for i, rows, z in draws())

        with Probe(everything, direction, self.restore == "copy") as probe:
            probe.to(self.eps)
            above = oracle.loss().clone()
            probe.to(-self.eps)
            below = oracle.loss()
            slope = float(above - below) / (2 * self.eps)
            if not self.usable(slope):
                return (above + below) / 2
            rest = probe.release()
        buffers = self.slots(everything, "momentum")
        for i, rows, z in draws():
            theta, b, group = part(everything[i], rows), part(buffers[i], rows), owner[i]
            if rest:
                theta.add_(z, alpha=rest)
            b.mul_(group["momentum"]).add_(z, alpha=slope)
            if group["weight_decay"]:
                b.add_(theta, alpha=group["weight_decay"])
            theta.add_(b, alpha=-group["lr"])
        return (above + below) / 2
