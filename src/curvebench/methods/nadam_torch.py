"""NAdam in torch (Dozat 2016): ``torch.optim.NAdam`` with its product of momenta in the parameters' dtype."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from curvebench.methods.validation import check


class NAdam(torch.optim.NAdam):
    """torch's NAdam, whose state continues bit-identically.

    ``m = b1 m + (1-b1) g``;  ``v = b2 v + (1-b2) g^2``;  ``mu_t = b1 (1 - 0.96^(momentum_decay t) / 2)``;
    ``n = (1-mu_t) g / (1 - mu_1..mu_t) + mu_{t+1} m / (1 - mu_1..mu_{t+1})``;
    ``theta <- theta - lr n / (sqrt(v/(1-b2^t)) + eps)``.

    The library keeps the product ``mu_1..mu_t`` in float32 whatever the parameters are, but its ``load_state_dict``
    casts it to their dtype: a float64 run was accurate to 1e-7 only, and another one after a restart.

    Args:
        params: parameters or groups, of floating dtype.
        lr: step size, >= 0.
        betas: decay rates ``(b1, b2)``, each in [0, 1).
        eps: added to the root, > 0.
        weight_decay: >= 0.
        momentum_decay: >= 0; 1e6 makes the momentum constant, as in the paper's algorithm and in optax.
        decoupled_weight_decay: decay the parameters, not the gradient.
        maximize: ascend.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter is not of floating dtype.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 1e6,
        decoupled_weight_decay: bool = False,
        maximize: bool = False,
    ) -> None:
        for name, value, allowed in (
            ("lr", lr, "[0, inf)"), ("beta1", betas[0], "[0, 1)"), ("beta2", betas[1], "[0, 1)"),
            ("eps", eps, "(0, inf)"), ("weight_decay", weight_decay, "[0, inf)"),
            ("momentum_decay", momentum_decay, "[0, inf)"),
        ):  # fmt: skip
            check("NAdam", name, value, allowed)
        super().__init__(
            params, lr, betas, eps, weight_decay, momentum_decay, decoupled_weight_decay, maximize=maximize
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, and the state that the library would make at their first step."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if not p.is_floating_point():
                self.param_groups.pop()
                raise TypeError(f"NAdam: a parameter has dtype {p.dtype}: must be floating")
            self.state[p] = {
                "step": torch.zeros((), dtype=torch.float64),
                "mu_product": torch.ones((), dtype=max(p.dtype, torch.float32, key=lambda t: t.itemsize)),
                "exp_avg": torch.zeros_like(p, requires_grad=False, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False, memory_format=torch.preserve_format),
            }
