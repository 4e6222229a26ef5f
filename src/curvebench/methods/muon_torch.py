"""Muon in torch (Jordan et al. 2024): orthogonalised momentum for hidden matrices, AdamW for everything else.

Matrix ``W [o, i]`` with gradient G: ``B = momentum B + (1-momentum) G``;
``O = NS((1-momentum) G + momentum B)``, Newton and Schulz's iteration towards the orthogonal polar factor;
``W <- (1 - lr weight_decay) W - lr sqrt(max(1, o/i)) O``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from curvebench.methods.validation import check


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` for hidden matrices and ``torch.optim.AdamW`` for the rest, as one optimiser.

    Args:
        model: module whose parameters are trained; :func:`hidden_matrices` says which of them are Muon's.
        lr: Muon's step size, >= 0.
        momentum: in [0, 1).
        weight_decay: of Muon's matrices, multiplied by lr, >= 0.
        nesterov: look ahead.
        ns_steps: Newton-Schulz iterations, in [1, 99].
        eps: least norm that a momentum is divided by, > 0.
        adamw_lr: AdamW's step size, >= 0.
        adamw_betas: AdamW's decay rates, each in [0, 1).
        adamw_eps: added to AdamW's root, > 0.
        adamw_weight_decay: of AdamW's parameters, multiplied by its step size, >= 0.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter is not of floating dtype.

    Differs from the paper: convolution kernels, which the original takes as matrices, stay with AdamW (torch's class
    refuses them). The iteration runs in bfloat16 whatever the dtype: that is the library's, and the original's.
    """

    takes = "model"

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 2e-2,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        nesterov: bool = True,
        ns_steps: int = 5,
        eps: float = 1e-7,
        adamw_lr: float = 1e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
        adamw_weight_decay: float = 0.0,
    ) -> None:
        for name, value, allowed in (
            ("lr", lr, "[0, inf)"), ("momentum", momentum, "[0, 1)"), ("weight_decay", weight_decay, "[0, inf)"),
            ("ns_steps", ns_steps, "[1, 99]"), ("eps", eps, "(0, inf)"), ("adamw_lr", adamw_lr, "[0, inf)"),
            ("adamw_beta1", adamw_betas[0], "[0, 1)"), ("adamw_beta2", adamw_betas[1], "[0, 1)"),
            ("adamw_eps", adamw_eps, "(0, inf)"), ("adamw_weight_decay", adamw_weight_decay, "[0, inf)"),
        ):  # fmt: skip
            check("Muon", name, value, allowed)
        hidden = hidden_matrices(model)
        mine = {id(p) for p in hidden.values()}
        rest = [p for p in model.parameters() if id(p) not in mine]
        for p in model.parameters():
            if not p.is_floating_point():
                raise TypeError(f"Muon: a parameter has dtype {p.dtype}: must be floating")
        self.parts: list[torch.optim.Optimizer] = []
        if hidden:
            self.parts.append(torch.optim.Muon(
                list(hidden.values()), lr, weight_decay, momentum, nesterov, eps=eps, ns_steps=ns_steps,
                adjust_lr_fn="original",
            ))  # fmt: skip
        if rest:
            self.parts.append(torch.optim.AdamW(rest, adamw_lr, adamw_betas, adamw_eps, adamw_weight_decay))
        self.names = sorted(hidden)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The parts work on this optimiser's groups and state, so that schedules and checkpoints see one optimiser."""
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups = [group]
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        self._share()


def hidden_matrices(model: nn.Module) -> dict[str, Tensor]:
    """Trained weights of two dimensions by name, without embeddings and the last one, which makes the outputs."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    matrices = {name: p for name, p in model.named_parameters()
                if p.dim() == 2 and p.requires_grad and id(p) not in embeddings}  # fmt: skip
    return dict(list(matrices.items())[:-1])
