"""Sophia-H in torch (Liu et al. 2024, arXiv 2305.14342): momentum over a Hutchinson estimate of the Hessian, clipped.

Per step with gradient g: ``m = b1 m + (1-b1) g``; every ``hessian_every``-th step, from the first, with a probe
``z ~ N(0, I)``: ``h = b2 h + (1-b2) z * H z``;
``theta <- (1 - lr weight_decay) theta - lr clip(m / max(gamma h, eps), -1, 1)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.methods.validation import check
from curvebench.oracle.optimizer_torch import OracleOptimizer
from curvebench.spec import Query

_SECOND = frozenset({Query.GRADIENT, Query.HVP})
_FIRST = frozenset({Query.GRADIENT})


class SophiaH(OracleOptimizer):
    """Sophia with Hutchinson's estimator.

    Alone, call ``loss.backward(create_graph=True)`` before ``step()`` on Hessian steps (every ``hessian_every``-th,
    from the first; ``needs_graph`` says so), or pass a closure that returns the loss.

    Args:
        params: parameters or groups, of floating dtype.
        lr: step size, >= 0: the most that a coordinate moves in a step.
        betas: decay rates ``(b1, b2)`` of momentum and curvature, each in [0, 1).
        gamma: scales the curvature, > 0: the smaller, the more coordinates are clipped.
        eps: least denominator, > 0: coordinates of negative curvature are clipped.
        weight_decay: decoupled decay, multiplied by lr, >= 0.
        hessian_every: a new Hessian every so many steps.
        generator: source of the probes; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range.
        MissingGraphError: a Hessian step without a graph.
        TypeError: a parameter is not of floating dtype.

    Differs from the paper: nothing that is known to us. ``pytorch_optimizer.SophiaH`` differentiates by itself, which
    no ledger sees; ``optax.contrib.sophia`` corrects m by ``1-b1^t`` and divides by the h of the step before.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 6e-2,
        betas: tuple[float, float] = (0.96, 0.99),
        gamma: float = 1e-2,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        hessian_every: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        check("SophiaH", "hessian_every", hessian_every, "[1, inf)")
        if hessian_every != int(hessian_every):
            raise HyperparameterError(f"SophiaH: hessian_every = {hessian_every!r}: must be a whole number")
        self.hessian_every = int(hessian_every)
        self.skipped = 0
        """Steps that were not taken because the gradient or ``H z`` was not finite."""
        defaults = {"lr": lr, "betas": betas, "gamma": gamma, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name in ("gamma", "eps"):
            check("SophiaH", name, group[name], "(0, inf)")
        for name in ("lr", "weight_decay"):  # a schedule may start at 0
            check("SophiaH", name, group[name], "[0, inf)")
        for name, beta in zip(("beta1", "beta2"), group["betas"], strict=True):
            check("SophiaH", name, beta, "[0, 1)")

    @property
    def needs_graph(self) -> bool:
        """Whether the step to come computes a Hessian, and so needs ``loss.backward(create_graph=True)``."""
        return self._steps % self.hessian_every == 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss when it is known."""
        oracle, second = self.ask(closure), self.needs_graph
        point = oracle.at(needs=_SECOND if second else _FIRST)
        gradients = [g.detach() for g in point.gradient()]
        curvature: list[Tensor] = []
        if second:
            stream = oracle.stream("hutchinson")
            probes = [stream.draw("normal", tuple(p.shape)) for p in oracle.parameters]
            curvature = [z * hz.detach() for z, hz in zip(probes, point.hvp(probes), strict=True)]
        if self.oracle is None:
            for p in oracle.parameters:
                if p.grad is not None and p.grad.requires_grad:
                    p.grad = p.grad.detach()  # a gradient with a graph refers to its parameter: a cycle
        self._steps += 1
        norms = torch.stack(torch._foreach_norm([*gradients, *curvature]))
        if not bool(norms.isfinite().all()):
            self.skipped += 1
            return point.loss()
        position = {p: i for i, p in enumerate(oracle.parameters)}  # alone: of those that have a gradient
        for group in self.param_groups:
            members = [p for p in group["params"] if p in position]
            if members:
                rows = [position[p] for p in members]
                self._move(group, members, [gradients[i] for i in rows], [curvature[i] for i in rows] if second else [])
        return point.loss()

    def _move(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], diagonal: list[Tensor]) -> None:
        (b1, b2), m, h = group["betas"], self.slots(params, "m"), self.slots(params, "h")
        torch._foreach_lerp_(m, grads, 1 - b1)
        if diagonal:
            torch._foreach_lerp_(h, diagonal, 1 - b2)
        scale = torch._foreach_mul(h, group["gamma"])
        torch._foreach_clamp_min_(scale, group["eps"])
        move = torch._foreach_div(m, scale)
        torch._foreach_clamp_min_(move, -1.0)
        torch._foreach_clamp_max_(move, 1.0)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, move, alpha=-group["lr"])
