"""AdaHessian in torch (Yao et al. 2021, arXiv 2006.00719): Adam with a Hutchinson estimate of the Hessian's diagonal.

Per step t with gradient g and one Rademacher probe z: ``D = average(|H z|)``;
``m = b1 m + (1-b1) g``;  ``v = b2 v + (1-b2) D^2``;
``theta <- theta - lr ( m/(1-b1^t) / ((v/(1-b2^h))^(k/2) + eps) + weight_decay theta )``, h counting Hessians.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.methods.averaging import Averaging, plan, resolve
from curvebench.methods.validation import check
from curvebench.oracle.optimizer_torch import OracleOptimizer
from curvebench.spec import Query

_LOG = logging.getLogger("curvebench.methods")
_SECOND = frozenset({Query.GRADIENT, Query.HVP})
_FIRST = frozenset({Query.GRADIENT})
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


class AdaHessian(OracleOptimizer):
    """AdaHessian.

    Alone, call ``loss.backward(create_graph=optimizer.needs_graph)`` before ``step()``, or pass a closure that returns
    the loss. The step takes the graph off the gradients, which would be reference cycles. A step whose gradient or
    ``H z`` is not finite changes nothing and is counted in ``skipped``.

    bfloat16 parameters have float32 moments, and the step is computed in float32.

    Args:
        params: parameters or groups, dense, of float32, float64 or bfloat16.
        lr: step size, >= 0.
        betas: decay rates ``(b1, b2)`` of the two moments, each in [0, 1).
        eps: added outside the root, > 0.
        weight_decay: decoupled decay, multiplied by lr, >= 0.
        hessian_power: ``k`` in (0, 1].
        averaging: ``'conv'``: mean over the kernel of 4-D tensors, others as they are (the image-classification code);
            ``'row'``: also whole rows of 2-D, and the last dimension of 3-D tensors; ``'none'``; or block sizes
            ``(b1, b2, b3, b4)`` by number of dimensions: consecutive blocks of the flattened tensor, -1: the row rule.
        hessian_every: a new Hessian every so many steps, from the first; between them ``v`` stays as it is and its bias
            correction counts Hessians, not steps. A parameter without one yet waits for the next.
        generator: source of the probes; by default an own one, seeded from torch's global seed at the first step.
        maximize: ascend.
        foreach: all tensors of a group together (None: yes), which needs as much memory again as they have.

    Raises:
        HyperparameterError: a value outside its range, or block sizes that do not divide a parameter.
        MissingGraphError: a Hessian step without a graph.
        TypeError: a parameter of another dtype, or sparse.

    Differs from the paper: like all the authors' code, absolute values are averaged, not signed ones (eq. 10).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.15,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        hessian_power: float = 1.0,
        averaging: Averaging = "conv",
        hessian_every: int = 1,
        generator: torch.Generator | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        check("AdaHessian", "hessian_every", hessian_every, "[1, inf)")
        if hessian_every != int(hessian_every):
            raise HyperparameterError(f"AdaHessian: hessian_every = {hessian_every!r}: must be a whole number")
        self.hessian_every = int(hessian_every)
        self.skipped = 0
        """Steps that were not taken because the gradient or ``H z`` was not finite."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "hessian_power": hessian_power, "averaging": averaging, "maximize": maximize,
                                  "foreach": foreach}, generator)  # fmt: skip

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range, and parameters that they do not fit."""
        allowed = {"lr": "[0, inf)", "eps": "(0, inf)", "weight_decay": "[0, inf)", "hessian_power": "(0, 1]"}
        for name, interval in allowed.items():
            check("AdaHessian", name, group[name], interval)
        if len(group["betas"]) != 2:
            raise HyperparameterError(f"AdaHessian: betas = {group['betas']!r}: must be two numbers")
        for name, beta in zip(("beta1", "beta2"), group["betas"], strict=True):
            check("AdaHessian", name, beta, "[0, 1)")
        if "hessian_every" in group:
            raise HyperparameterError(
                f"AdaHessian: hessian_every = {group['hessian_every']!r} in a group: all parameters share one Hessian"
            )
        group["averaging"] = resolve("AdaHessian", group["averaging"])
        for p in group["params"]:
            if p.dtype not in _DTYPES or p.layout != torch.strided:
                raise TypeError(
                    f"AdaHessian: a parameter has dtype {p.dtype} and layout {p.layout}: must be float32, float64 or "
                    "bfloat16 (products with the Hessian overflow float16: keep float32 parameters under autocast), "
                    "and strided"
                )
            plan("AdaHessian", group["averaging"], p.shape)

    @property
    def needs_graph(self) -> bool:
        """Whether the step to come computes a Hessian, and so needs ``loss.backward(create_graph=True)``."""
        return self._steps % self.hessian_every == 0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, probes: Sequence[Tensor] | None = None) -> Any:
        """One step; returns the loss when it is known.

        Args:
            closure: returns the loss; may call ``backward(create_graph=True)``.
            probes: ``z``, +-1, for each parameter that has a gradient, in order: to replay a recorded run.
        """
        second = self.needs_graph
        oracle = self.ask(closure)
        point = oracle.at(needs=_SECOND if second else _FIRST)
        gradients = [g.detach() for g in point.gradient()]
        curvature: list[Tensor] = []
        if second:
            if probes is None:
                stream = oracle.stream("hutchinson")
                probes = [stream.draw("rademacher", tuple(p.shape)) for p in oracle.parameters]
            z = [draw.to(p) for draw, p in zip(probes, oracle.parameters, strict=True)]
            curvature = list(torch._foreach_abs([_wide(hz) for hz in point.hvp(z)]))
        if self.oracle is None:
            for p in oracle.parameters:
                if p.grad is not None and p.grad.requires_grad:
                    p.grad = p.grad.detach()
        self._steps += 1
        if not _finite([*gradients, *curvature]):
            self.skipped += 1
            _LOG.warning("AdaHessian: step %d skipped: the gradient or H z is not finite", self._steps)
            return point.loss()
        position = {p: i for i, p in enumerate(oracle.parameters)}
        for group in self.param_groups:
            members = [p for p in group["params"] if p in position]
            rule = group["averaging"]
            diagonal = [average(curvature[position[p]], rule) for p in members] if second else []
            self._update(group, members, [gradients[position[p]] for p in members], diagonal)
        return point.loss()

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], diagonal: list[Tensor]) -> None:
        ages: dict[tuple[int, ...], list[int]] = {}  # all of one age, unless some parameters had no gradient at times
        for i, p in enumerate(params):
            state = self.state[p]
            if not state:
                wide = torch.float32 if p.dtype == torch.bfloat16 else p.dtype  # 0.999 is 1 in bfloat16
                state.update(step=0, hessians=0, m=torch.zeros_like(p, dtype=wide), v=torch.zeros_like(p, dtype=wide))
            state["step"] += 1
            state["hessians"] += bool(diagonal)
            alone = (i,) if group["foreach"] is False else ()
            ages.setdefault((state["step"], state["hessians"], *alone), []).append(i)
        for (t, h, *_), rows in ages.items():
            lists = (params, grads, diagonal)
            self._move(group, t, h, *([values[i] for i in rows] if values else [] for values in lists))

    def _move(
        self, group: dict[str, Any], t: int, h: int, params: list[Tensor], grads: list[Tensor], diagonal: list[Tensor]
    ) -> None:
        states = [self.state[p] for p in params]
        (b1, b2), lr, power = group["betas"], group["lr"], group["hessian_power"]
        m, v = [s["m"] for s in states], [s["v"] for s in states]
        grads = list(map(_wide, grads))
        torch._foreach_lerp_(m, torch._foreach_neg(grads) if group["maximize"] else grads, 1 - b1)
        if diagonal:
            torch._foreach_mul_(v, b2)
            torch._foreach_addcmul_(v, diagonal, diagonal, 1 - b2)
        if h == 0:
            return  # no curvature of these yet, and dividing by eps alone would throw them far away
        scale = torch._foreach_div(v, 1 - b2**h)
        if power == 1.0:
            torch._foreach_sqrt_(scale)
        else:
            torch._foreach_pow_(scale, power / 2)
        torch._foreach_add_(scale, group["eps"])
        moved = list(map(_wide, params))
        if group["weight_decay"]:
            torch._foreach_mul_(moved, 1 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(moved, m, scale, -lr / (1 - b1**t))
        for p, new in zip(params, moved, strict=True):
            if new is not p:
                p.copy_(new)

    def notes(self) -> list[str]:
        """Sentences for a record: the steps that were skipped."""
        if not self.skipped:
            return []
        return [f"{self.skipped} of {self._steps} steps skipped: the gradient or H z was not finite"]

    def state_dict(self) -> dict[str, Any]:
        """The state, the probes' generator and the counts included, so that a run continues bit-identically."""
        return {**super().state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        self.skipped = rest.pop("skipped", 0)
        super().load_state_dict(rest)
        for i, p in enumerate(self.everything()):
            saved = rest["state"].get(i, {})
            if p.dtype == torch.bfloat16 and saved:  # torch has rounded the moments to the parameter's dtype
                self.state[p].update({k: saved[k].to(p.device, copy=True) for k in ("m", "v")})


def average(diagonal: Tensor, rule: Averaging) -> Tensor:
    """Spatial averaging of ``|H z|`` of any shape and strides; the result has the same shape.

    Raises:
        HyperparameterError: a block size does not divide the number of elements.
    """
    over = plan("AdaHessian", rule, diagonal.shape)
    if isinstance(over, int):
        blocks = diagonal.reshape(-1, over)
        return blocks.mean(1, keepdim=True).expand_as(blocks).reshape(diagonal.shape)
    return diagonal.mean(over, keepdim=True).expand_as(diagonal) if over else diagonal


def _wide(values: Tensor) -> Tensor:
    """Float32 for bfloat16, a new tensor; other tensors themselves."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all are finite, and their squares, which ``v`` averages; one wait for the device."""
    norms = torch._foreach_norm(list(tensors))
    return bool(torch.stack([n.to(norms[0]) for n in norms]).isfinite().all())
