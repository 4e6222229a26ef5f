"""DCT-AdamW in torch (arXiv 2505.17967): AdamW on a gradient projected to columns of the discrete cosine basis.

``G [rows, cols]``, ``rows >= cols`` (else transposed), kernels flattened to ``[out, in kh kw]``; every ``select_every``
steps the ``rank`` columns of ``G Q`` with the largest l1 norms; ``a = G Q[:, idx]``; ``m``, ``v`` Adam's moments of a;
``u = m / (sqrt(v) + eps sqrt(1 - b2^t))``;
``theta <- (1 - lr weight_decay) theta - lr sqrt(1 - b2^t) / (1 - b1^t) u Q[:, idx]'``. Vectors: plain AdamW.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError
from curvebench.kernels.dct_torch import carried, dct_basis, select
from curvebench.kernels.descent_torch import adam_
from curvebench.methods.validation import check

_LOG = logging.getLogger("curvebench.methods")
LARGEST_SIDE = 32000
"""Matrices with a side as long as this, such as embeddings, get plain AdamW, as in the authors' code."""


class DCTAdamW(torch.optim.Optimizer):
    """Low-rank AdamW without a singular value decomposition.

    The basis is a constant, kept once for every length of the shorter side; a state holds the moments ``[longer side,
    rank]``, the indices, and with ``error_feedback`` what the projection lost, as large as the parameter.

    Args:
        params: parameters or groups, float32 or float64. All options but ``rank`` may differ between groups.
        lr: step size, >= 0.
        betas: decay rates ``(b1, b2)``, each in [0, 1).
        eps: added outside the root, > 0.
        weight_decay: decoupled decay, multiplied by lr, >= 0.
        rank: columns kept, >= 1; a matrix with a shorter side keeps all. Then this is AdamW in cosine coordinates,
            which is not AdamW: the division by the root of v depends on coordinates.
        select_every: steps between two choices of columns, >= 1.
        rotate: at a new choice carry the moments over, ``m R`` and ``|v R|`` with ``R = Q_old' Q_new``; else they stay
            as they are and belong to other columns.
        error_feedback: what a projection loses is added to the next gradient.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter of another dtype.

    A step whose gradients are not finite is not taken, and counted in ``skipped``.
    Differs from the authors' code: a basis for every shorter side (there only the first layer's, others raise); 3- and
    4-D parameters are flattened (there they are never updated); what was lost is kept in full precision, not 8 bits.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rank: int = 32,
        select_every: int = 10,
        rotate: bool = True,
        error_feedback: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "rank": rank,
                                  "select_every": select_every, "rotate": bool(rotate),
                                  "error_feedback": bool(error_feedback)})  # fmt: skip
        self.skipped = 0
        """Steps that were not taken because a gradient was not finite."""
        self._bases: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; a bad option is refused and nothing is added."""
        super().add_param_group(param_group)
        try:
            _check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the closure's loss, if there is one.

        Raises:
            CurvebenchError: no parameter has a gradient, or a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        live = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        gradients: list[Tensor] = [p.grad for _, p in live]
        if not live:
            raise CurvebenchError("DCTAdamW: no parameter has a gradient: call loss.backward() before step()")
        if any(g.is_sparse for g in gradients):
            raise CurvebenchError("DCTAdamW: a gradient is sparse: its transform is dense (sparse=False)")
        if not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            self.skipped += 1
            _LOG.warning("DCTAdamW: a step was skipped: a gradient is not finite")
            return loss
        for (group, p), g in zip(live, gradients, strict=True):
            state = self.state[p]
            state["step"] = state.get("step", 0) + 1
            if p.dim() < 2 or max(p.shape[0], p[0].numel()) >= LARGEST_SIDE:
                self._plain(group, p, g, state)
            else:
                self._projected(group, p, g, state)
        return loss

    @staticmethod
    def _plain(group: dict[str, Any], p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        if "m" not in state:
            state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
        adam_([p], [g], [state["m"]], [state["v"]], t=state["step"], lr=group["lr"], betas=group["betas"],
              eps=group["eps"], weight_decay=group["weight_decay"])  # fmt: skip

    def _projected(self, group: dict[str, Any], p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        G = g.flatten(1)
        wide = G.shape[0] < G.shape[1]
        G = G.T if wide else G
        if group["error_feedback"]:
            G = G + state["lost"] if "lost" in state else G
        Q = self._basis(G)
        if (state["step"] - 1) % group["select_every"] == 0:
            self._choose(group, G, Q, state)
        E = Q[:, state["idx"]]
        a = G @ E
        if group["error_feedback"]:
            state["lost"] = G - a @ E.T
        (b1, b2), t, lr = group["betas"], state["step"], group["lr"]
        m, v = state["m"].lerp_(a, 1 - b1), state["v"].mul_(b2).addcmul_(a, a, value=1 - b2)
        root = (1 - b2**t) ** 0.5
        u = m / v.sqrt().add_(group["eps"] * root) @ E.T
        if group["weight_decay"]:
            p.mul_(1 - lr * group["weight_decay"])
        p.add_((u.T if wide else u).reshape(p.shape), alpha=-lr * root / (1 - b1**t))

    @staticmethod
    def _choose(group: dict[str, Any], G: Tensor, Q: Tensor, state: dict[str, Any]) -> None:
        r = min(int(group["rank"]), G.shape[1])
        idx = select(G @ Q, r)
        if "idx" not in state:
            state["m"], state["v"] = (torch.zeros(len(G), r, dtype=G.dtype, device=G.device) for _ in range(2))
        elif group["rotate"]:  # R is zeros and ones, so v R has no signs to take away
            state["m"], state["v"] = (carried(state[name], state["idx"], idx) for name in "mv")
        state["idx"] = idx

    def _basis(self, G: Tensor) -> Tensor:
        key = (G.shape[1], G.dtype, G.device)
        if key not in self._bases:
            self._bases[key] = dct_basis(*key)
        return self._bases[key]

    def notes(self) -> list[str]:
        """Sentences for a record."""
        return [f"{self.skipped} steps skipped: a gradient was not finite"] if self.skipped else []

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state and the count of skipped steps; the bases are constants and are made anew."""
        return super().state_dict() | {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        self.skipped = rest.pop("skipped", 0)
        indices = {k: s["idx"] for k, s in rest["state"].items() if "idx" in s}
        super().load_state_dict(rest)
        everything = [p for group in self.param_groups for p in group["params"]]
        for k, idx in indices.items():  # torch casts state to the parameter's dtype, indices too
            self.state[everything[k]]["idx"] = idx.to(everything[k].device, copy=True)


def _check_group(group: dict[str, Any]) -> None:
    allowed = {"lr": "[0, inf)", "eps": "(0, inf)", "weight_decay": "[0, inf)", "rank": "[1, inf)",
               "select_every": "[1, inf)"}  # fmt: skip
    for name, interval in allowed.items():
        check("DCTAdamW", name, group[name], interval)
    for name, beta in zip(("beta1", "beta2"), group["betas"], strict=True):
        check("DCTAdamW", name, beta, "[0, 1)")
    for p in group["params"]:
        if p.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"DCTAdamW: a parameter has dtype {p.dtype}: must be float32 or float64")
