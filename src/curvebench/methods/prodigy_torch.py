"""Prodigy in torch (Mishchenko, Defazio 2024, arXiv 2306.06101): the library's, with sums of the run's dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_optimizer
import torch

from curvebench.methods.validation import check


class Prodigy(pytorch_optimizer.Prodigy):
    """AdamW whose step size is ``lr d``, with d estimated from the distance travelled.

    With gradient g, start ``theta_0`` and ``k_t = sqrt(1-b2^t) / (1-b1^t)``:
    ``r = sqrt(b2) r + d/d0 (lr d k_t) <g, theta_0 - theta>``;  ``s = sqrt(b2) s + d/d0 (lr d k_t) g``;
    ``m = b1 m + (1-b1) d g``;  ``v = b2 v + (1-b2) d^2 g^2``;  ``d' = max(d, d_coef r / |s|_1)``;
    ``theta <- (1 - lr d k_t weight_decay) theta - lr d k_t m / (sqrt(v) + d' eps)``;  ``d <- d'``.

    The library makes the two sums that d is a quotient of in torch's default dtype, float32, whatever the parameters
    are; here the default is the parameters' dtype while the update is computed.

    Args:
        params: parameters or groups, of floating dtype.
        lr: factor of the estimated step size, >= 0.
        betas: decay rates ``(b1, b2)``, each in [0, 1).
        eps: added to the root, multiplied by d, > 0.
        d0: first estimate of the step size, > 0; must be below the best one.
        d_coef: factor of the estimate, > 0.
        weight_decay: decoupled decay, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter is not of floating dtype.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value, allowed in (
            ("lr", lr, "[0, inf)"), ("beta1", betas[0], "[0, 1)"), ("beta2", betas[1], "[0, 1)"),
            ("eps", eps, "(0, inf)"), ("d0", d0, "(0, inf)"), ("d_coef", d_coef, "(0, inf)"),
            ("weight_decay", weight_decay, "[0, inf)"),
        ):  # fmt: skip
            check("Prodigy", name, value, allowed)
        super().__init__(
            params, lr=lr, betas=betas, beta3=None, d0=d0, d_coef=d_coef, growth_rate=float("inf"),
            weight_decay=weight_decay, weight_decouple=True, fixed_decay=False, bias_correction=True,
            safeguard_warmup=False, eps=eps,
        )  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                if not p.is_floating_point():
                    raise TypeError(f"Prodigy: a parameter has dtype {p.dtype}: must be floating")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.param_groups[0]["params"][0].dtype)
        try:
            super().step()
        finally:
            torch.set_default_dtype(before)
        return loss
