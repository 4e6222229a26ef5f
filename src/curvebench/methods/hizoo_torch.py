"""HiZOO in torch (Zhao et al. 2024): MeZO scaled by an estimate ``h`` of the Hessian's diagonal from a third loss.

``u = z / sqrt(h)``, ``z ~ N(0, I)``, ``h = 1`` at first; ``L0, L+, L-`` the losses at ``theta``, ``theta +- eps u``;
``h <- (1 - alpha) h + alpha |L+ + L- - 2 L0| / (2 eps^2) h z^2``;
``g = (L+ - L-) / (2 eps) z / sqrt(h)`` with the new h;  ``theta <- theta - lr (g + weight_decay theta)``.
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


class HiZOO(LossOptimizer):
    """Hessian-informed zeroth-order SGD. Alone, pass ``step`` a closure that returns the loss.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0.
        eps: half the distance between the two outer evaluations, > 0.
        alpha: how fast ``h`` follows, in [0, 1]; 0 is MeZO.
        weight_decay: decay, multiplied by lr, >= 0.
        restore: ``'replay'``: walk back by drawing the noise again, fused with the update (drift of rounding size,
            refused in half precision); ``'copy'``: keep a copy of the weights during the step, bit-exact.
        generator: source of the noise; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
        CurvebenchError: ``step`` without a closure.

    Differs from the authors' code: three losses instead of four (the fourth is only logged there).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-6,
        eps: float = 1e-3,
        alpha: float = 1e-8,
        weight_decay: float = 0.0,
        restore: str = "replay",
        generator: torch.Generator | None = None,
    ) -> None:
        check("HiZOO", "eps", eps, "(0, inf)")
        check("HiZOO", "restore", restore, ("replay", "copy"))
        self.eps, self.restore = eps, restore
        super().__init__(params, {"lr": lr, "alpha": alpha, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range, and half precision with ``restore='replay'``."""
        for name, allowed in (("lr", "[0, inf)"), ("alpha", "[0, 1]"), ("weight_decay", "[0, inf)")):
            check("HiZOO", name, group[name], allowed)
        if self.restore == "replay":
            refuse_half("HiZOO", group["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step of three losses; returns the one at the parameters before it."""
        oracle, everything, eps = self.ask(closure), self.everything(), self.eps
        owner = self.owners()
        curvature = self.slots(everything, "h", 1.0)

        def draws() -> Iterator[tuple[int, slice | None, Tensor]]:
            return noise(everything, partial(oracle.stream("mezo").draw, "normal"))

        def direction() -> Iterator[tuple[Tensor, Tensor]]:
            return ((part(everything[i], rows), z / part(curvature[i], rows).sqrt()) for i, rows, z in draws())

        middle = oracle.loss().clone()
        with Probe(everything, direction, self.restore == "copy") as probe:
            probe.to(eps)
            above = oracle.loss().clone()
            probe.to(-eps)
            below = oracle.loss()
            slope = float(above - below) / (2 * eps)
            if not self.usable(slope):
                return middle
            rest = probe.release()
        bend = abs(float(above + below - 2 * middle)) / (2 * eps**2)
        for i, rows, z in draws():
            theta, h, group = part(everything[i], rows), part(curvature[i], rows), owner[i]
            if rest:
                theta.addcdiv_(z, h.sqrt(), value=rest)
            h.mul_(z.square().mul_(group["alpha"] * bend).add_(1 - group["alpha"]))
            if group["weight_decay"]:
                theta.mul_(1 - group["lr"] * group["weight_decay"])
            theta.addcdiv_(z, h.sqrt(), value=-group["lr"] * slope)
        return middle
