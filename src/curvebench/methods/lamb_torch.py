"""LAMB in torch (You et al. 2020, arXiv 1904.00962): Adam, each tensor's step of a length relative to the tensor.

Per tensor ``theta`` with gradient g at step t: ``m = b1 m + (1-b1) g``;  ``v = b2 v + (1-b2) g^2``;
``r = m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + weight_decay theta``;
``theta <- theta - lr (|theta| / |r|) r``, the ratio 1 where a norm is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.methods.validation import check
from curvebench.oracle.optimizer_torch import OracleOptimizer
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT})


class LAMB(OracleOptimizer):
    """LAMB. Alone, call ``loss.backward()`` before ``step()``, or pass a closure that returns the loss.

    Args:
        params: parameters or groups, of floating dtype.
        lr: step size relative to a tensor's norm, >= 0.
        betas: decay rates ``(b1, b2)``, each in [0, 1).
        eps: added to the root, > 0.
        weight_decay: added to the direction before its length is taken, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter is not of floating dtype.

    Differs from the paper: ``phi``, which may bound ``|theta|``, is the identity, as in optax. Written here because
    ``pytorch_optimizer.Lamb`` 4.1.0 divides the whole step by ``1-b1^t`` after the ratio is taken (the first step is
    ten times as long at b1 = 0.9), does not correct v, and bounds ``|theta|`` by 10.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name, allowed in (("lr", "[0, inf)"), ("eps", "(0, inf)"), ("weight_decay", "[0, inf)")):
            check("LAMB", name, group[name], allowed)
        for name, beta in zip(("beta1", "beta2"), group["betas"], strict=True):
            check("LAMB", name, beta, "[0, 1)")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss when it is known."""
        oracle = self.ask(closure)
        point = oracle.at(needs=_NEEDS)
        found = point.gradient()
        gradients = dict(zip(oracle.parameters, found, strict=True))  # alone: of those that have one
        for group in self.param_groups:
            ages: dict[int, list[Tensor]] = {}  # all of one age, unless some parameters had no gradient at times
            for p in group["params"]:
                if p in gradients:
                    self.state[p]["step"] = self.state[p].get("step", 0) + 1
                    ages.setdefault(self.state[p]["step"], []).append(p)
            for t, members in ages.items():
                self._move(group, t, members, [gradients[p] for p in members])
        return point.loss()

    def _move(self, group: dict[str, Any], t: int, params: list[Tensor], grads: list[Tensor]) -> None:
        (b1, b2), m, v = group["betas"], self.slots(params, "m"), self.slots(params, "v")
        torch._foreach_lerp_(m, grads, 1 - b1)
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, grads, grads, 1 - b2)
        scale = torch._foreach_div(v, 1 - b2**t)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        r = torch._foreach_div(m, 1 - b1**t)
        torch._foreach_div_(r, scale)
        if group["weight_decay"]:
            torch._foreach_add_(r, params, alpha=group["weight_decay"])
        sizes, lengths = torch.stack(torch._foreach_norm(params)), torch.stack(torch._foreach_norm(r))
        ratio = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, 1.0)
        torch._foreach_mul_(r, list((-group["lr"] * ratio).unbind()))
        torch._foreach_add_(params, r)
