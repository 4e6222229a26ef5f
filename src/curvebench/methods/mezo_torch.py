"""MeZO in torch (Malladi et al. 2023, arXiv 2305.17333): two-point zeroth-order SGD that replays its noise.

``z ~ N(0, I)``;  ``c = (f(theta + eps z) - f(theta - eps z)) / (2 eps)``;
``theta <- theta - lr (c z + weight_decay theta)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError
from curvebench.kernels.replay_torch import Along, Probe, Visit, refuse_half, visit, visit_blocks
from curvebench.methods.validation import check
from curvebench.oracle.optimizer_torch import LossOptimizer
from curvebench.oracle.streams_torch import NativeStream


class MeZO(LossOptimizer):
    """Memory-efficient zeroth-order SGD.

    Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed and autograd is off inside.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0.
        eps: half the distance between the two evaluations, > 0.
        weight_decay: decay, multiplied by lr, >= 0.
        restore: ``'replay'``: the noise is drawn three times, and resetting the weights is fused with the update
            (``theta += (eps - lr c) z``); no memory, drift of rounding size, refused in half precision, where the reset
            loses the weights. ``'copy'``: a copy of the weights is kept during the step; bit-exact.
        generator: source of the noise; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
        CurvebenchError: ``step`` without a closure.

    Differs from the authors' code: three draws instead of four, in place, in chunks with seeds of their own, which the
    threads of torch share; the global generator is untouched.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-6,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        restore: str = "replay",
        generator: torch.Generator | None = None,
    ) -> None:
        check("MeZO", "eps", eps, "(0, inf)")
        check("MeZO", "restore", restore, ("replay", "copy"))
        self.eps, self.restore = eps, restore
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range, and half precision with ``restore='replay'``."""
        check("MeZO", "lr", group["lr"], "[0, inf)")
        check("MeZO", "weight_decay", group["weight_decay"], "[0, inf)")
        if self.restore == "replay":
            refuse_half("MeZO", group["params"])

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Any] | None = None, *, probes: Sequence[Tensor] | None = None
    ) -> Tensor:
        """One step of two evaluations; returns ``f(theta + eps z)``.

        Args:
            closure: returns the loss.
            probes: ``z`` for each parameter that is trained, in order and of its shape: to replay a recorded run.

        Raises:
            CurvebenchError: no closure, or probes of other shapes.
        """
        oracle, everything, eps = self.ask(closure), self.everything(), self.eps
        if probes is not None and [z.shape for z in probes] != [p.shape for p in everything]:
            raise CurvebenchError(
                f"MeZO: probes of shapes {[tuple(z.shape) for z in probes]}: must be "
                f"{[tuple(p.shape) for p in everything]}, those of the trained parameters, in order"
            )
        owner = self.owners()

        def walk(each: Visit) -> None:
            if probes is not None:
                for i, (theta, z) in enumerate(zip(everything, probes, strict=True)):
                    each(i, theta, z.to(theta))
                return
            stream = oracle.stream("mezo")
            if isinstance(stream, NativeStream):  # no twin in jax to agree with: blocks, that threads can share
                visit_blocks(everything, lambda: stream.blocks("normal"), each)
            else:
                visit(everything, partial(stream.fill_, kind="normal"), each)

        def add(scale: float) -> None:
            def each(i: int, theta: Tensor, z: Tensor) -> None:
                theta.add_(z, alpha=scale)

            walk(each)

        with Probe(everything, Along(add), self.restore == "copy") as probe:
            probe.to(eps)
            above = oracle.loss().clone()
            probe.to(-eps)
            below = oracle.loss()
            slope = float((above - below) / (2 * eps))
            if not self.usable(slope):
                return above
            rest = probe.release()

        def update(i: int, theta: Tensor, z: Tensor) -> None:
            group = owner[i]
            keep = 1 - group["lr"] * group["weight_decay"]
            if keep != 1:
                theta.mul_(keep)
            theta.add_(z, alpha=keep * rest - group["lr"] * slope)

        walk(update)
        return above
