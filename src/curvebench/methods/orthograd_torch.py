"""OrthoGrad (perpGrad) in torch (Prieto et al. 2025, arXiv 2501.04697): gradients without their part along the weights.

Per tensor: ``g <- g - (w'g / w'w) w``, with ``rescale`` stretched back to the length of g; a base optimiser takes the
step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.orthogonal_torch import orthogonal_gradient
from curvebench.methods.validation import check

_LOG = logging.getLogger("curvebench.methods")


class OrthoGrad:
    """Projects gradients and leaves the step to a base optimiser: ``precondition(); base.step()``.

    Args:
        params: the tensors whose gradients are projected, each on its own; others of the base are left alone.
        base: any torch optimiser; None: AdamW of ``params`` with the options below.
        rescale: the projected gradient keeps the length of the gradient, as in the authors' code.
        lr: step size of the AdamW that is built without ``base``.
        betas: its decay rates.
        eps: its eps; the authors use 1e-25.
        weight_decay: its decay.

    Raises:
        HyperparameterError: a value outside its range, or options beside a base.
        TypeError: a parameter that is not floating.

    A step whose gradients are not finite is not taken, and counted in ``skipped``.
    Differs from the paper: ``rescale`` (the default) is in the code and not in equation 12.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        base: torch.optim.Optimizer | None = None,
        rescale: bool = True,
        lr: float | None = None,
        betas: tuple[float, float] | None = None,
        eps: float | None = None,
        weight_decay: float | None = None,
    ) -> None:
        self.parameters = [p for p in params if p.requires_grad]
        for p in self.parameters:
            if not p.is_floating_point():
                raise TypeError(f"OrthoGrad: a parameter has dtype {p.dtype}: must be floating")
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        self.base = self._adamw(options) if base is None else base
        if base is not None and (given := [name for name, value in options.items() if value is not None]):
            raise HyperparameterError(f"OrthoGrad: {', '.join(given)}: the base optimiser's: set them there")
        self.rescale = bool(rescale)
        self.steps = 0
        self.skipped = 0
        """Steps that were not taken because a gradient was not finite."""

    def _adamw(self, options: dict[str, Any]) -> torch.optim.Optimizer:
        if options["lr"] is None:
            raise HyperparameterError("OrthoGrad: pass base, the optimiser that takes the step, or lr for an AdamW")
        defaults = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
        chosen = {**defaults, **{name: value for name, value in options.items() if value is not None}}
        for name, allowed in (("lr", "[0, inf)"), ("eps", "(0, inf)"), ("weight_decay", "[0, inf)")):
            check("OrthoGrad", name, chosen[name], allowed)
        for name, beta in zip(("beta1", "beta2"), chosen["betas"], strict=True):
            check("OrthoGrad", name, beta, "[0, 1)")
        return torch.optim.AdamW(self.parameters, **chosen)

    @torch.no_grad()
    def precondition(self) -> bool:
        """Project the gradients in place; False, and all gradients None, if one is not finite.

        Raises:
            CurvebenchError: no parameter has a gradient, or a gradient is sparse.
        """
        live = [p for p in self.parameters if p.grad is not None]
        if not live:
            raise CurvebenchError("OrthoGrad: no parameter has a gradient: call loss.backward() before step()")
        gradients: list[Tensor] = [p.grad for p in live]  # type: ignore[misc]  # filtered above
        if any(g.is_sparse for g in gradients):
            raise CurvebenchError("OrthoGrad: a gradient is sparse: projecting it makes it dense (sparse=False)")
        self.steps += 1
        if not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            self.skipped += 1
            _LOG.warning("OrthoGrad: step %d skipped: a gradient is not finite", self.steps)
            for group in self.base.param_groups:
                for p in group["params"]:
                    p.grad = None
            return False
        for p, g in zip(live, gradients, strict=True):
            p.grad = orthogonal_gradient(p, g, self.rescale)
        return True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """``precondition(); base.step()``; the closure, if any, runs forward and backward and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.precondition():
            self.base.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients."""
        self.base.zero_grad(set_to_none)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimiser's groups; schedulers should be attached to the base."""
        return self.base.param_groups

    @property
    def state(self) -> dict[Any, Any]:
        """The base optimiser's state; there is no other."""
        return self.base.state

    def notes(self) -> list[str]:
        """Sentences for a record."""
        return [f"{self.skipped} of {self.steps} steps skipped: a gradient was not finite"] if self.skipped else []

    def state_dict(self) -> dict[str, Any]:
        """The base optimiser's state and the counts."""
        return {"base": self.base.state_dict(), "steps": self.steps, "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.base.load_state_dict(state_dict["base"])
        self.steps, self.skipped = state_dict["steps"], state_dict["skipped"]
