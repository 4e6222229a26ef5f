"""DeepZero in torch (Chen et al. 2024, arXiv 2310.02025): coordinate-wise gradients on sparse random masks.

First step: ZO-GraSP gives a share of zeros for every weight tensor. ``g0 = RGE(theta)``, ``g1 = RGE(theta + mu g0)``,
``S = -theta (g1 - g0) / mu``; the ``sparsity`` share of weights with the smallest ``|S|`` over all tensors is counted.
Every ``mask_every`` steps: a random mask per tensor with that share of zeros.
Each step: CGE on the masks, 0 elsewhere;  ``b <- momentum b + g + weight_decay theta``;  ``theta <- theta - lr b``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError
from curvebench.kernels.descent_torch import momentum_
from curvebench.kernels.zeroth_torch import RGE, coordinate_gradient, restored
from curvebench.methods.validation import check, whole
from curvebench.oracle.optimizer_torch import LossOptimizer

RANKINGS = ("magnitude", "signed", "uniform")


class DeepZero(LossOptimizer):
    """Sparse coordinate-wise zeroth-order SGD. Alone, pass ``step`` a closure that returns the loss.

    Only tensors of two and more dimensions are masked (convolutions, linear layers); biases and normalisation are
    always active. A step asks |S| + 1 losses for |S| active coordinates, the first one ``2 (grasp_queries + 1)`` more.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone.
        lr: step size, >= 0.
        mu: smoothing radius, > 0, of CGE and of ZO-GraSP.
        sparsity: share of masked weights, in [0, 1).
        mask_every: steps between two draws of the masks, >= 1.
        grasp_queries: directions of each of ZO-GraSP's two estimates, >= 1.
        ranking: ``'magnitude'``: prune the smallest ``|S|`` (the released code); ``'signed'``: the largest S (GraSP's
            own rule); ``'uniform'``: the same share everywhere, no ZO-GraSP and none of its queries.
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0; like momentum it also moves coordinates that are masked now.
        generator: source of directions and masks; by default an own one, seeded from torch's global seed.

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: ``step`` without a closure.

    Differs from the authors' code: the estimates of ZO-GraSP are unbiased (there without 1/mu, and each tensor with a
    factor of its own), share their directions, and start from clean weights (there the weights drift while scoring);
    they use the first step's batch (there 25 samples of each class).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.1,
        mu: float = 5e-3,
        sparsity: float = 0.9,
        mask_every: int = 100,
        grasp_queries: int = 192,
        ranking: str = "magnitude",
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        generator: torch.Generator | None = None,
    ) -> None:
        check("DeepZero", "mu", mu, "(0, inf)")
        check("DeepZero", "sparsity", sparsity, "[0, 1)")
        check("DeepZero", "ranking", ranking, RANKINGS)
        self.mu, self.sparsity, self.ranking = mu, sparsity, ranking
        self.mask_every = whole("DeepZero", "mask_every", mask_every, "[1, inf)")
        self.grasp_queries = whole("DeepZero", "grasp_queries", grasp_queries, "[1, inf)")
        self._seed = 0  # of the masks
        self._zeros: list[int] | None = None
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range."""
        for name, allowed in (("lr", "[0, inf)"), ("momentum", "[0, 1)"), ("weight_decay", "[0, inf)")):
            check("DeepZero", name, group[name], allowed)

    @property
    def maskable(self) -> list[Tensor]:
        """The tensors that masks apply to."""
        return [p for p in self.everything() if p.dim() >= 2]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it."""
        oracle, everything = self.ask(closure), self.everything()
        if self._zeros is None:
            self._zeros = self._uniform() if self.ranking == "uniform" else self._grasp(oracle)
        if self._steps % self.mask_every == 0:
            self._seed = self.fresh_seed(oracle, "masks")
        self._steps += 1
        seen = coordinate_gradient(oracle.loss, everything, mu=self.mu, masks=self.masks())
        if not self.usable(seen.gradient):
            return seen.loss
        for group, params, gradient in self.by_group(seen.gradient):
            buffers = self.slots(params, "momentum") if group["momentum"] else []
            momentum_(params, gradient, buffers, lr=group["lr"], momentum=group["momentum"],
                      weight_decay=group["weight_decay"])  # fmt: skip
        return seen.loss

    def masks(self) -> list[Tensor | None]:
        """The masks of the last step, one per trained parameter, drawn again from their seed; None where never masked.

        Raises:
            CurvebenchError: there was no step yet.
        """
        if self._zeros is None:
            raise CurvebenchError("DeepZero: the first step decides how many weights of each tensor are masked")
        generator = torch.Generator(self.everything()[0].device).manual_seed(self._seed)
        zeros, out = iter(self._zeros), []
        for p in self.everything():
            mask = None
            if p.dim() >= 2:
                order = torch.rand(p.numel(), generator=generator, device=generator.device).argsort(stable=True)
                mask = torch.ones(p.numel(), dtype=torch.bool, device=generator.device)
                mask[order[: next(zeros)]] = False
                mask = mask.view(p.shape)
            out.append(mask)
        return out

    def _uniform(self) -> list[int]:
        return [round(self.sparsity * p.numel()) for p in self.maskable]

    def _grasp(self, oracle: Any) -> list[int]:
        """How many weights of each maskable tensor are masked, by ZO-GraSP."""
        everything, estimate = self.everything(), RGE(self.mu, self.grasp_queries)
        before = estimate(oracle.loss, everything, partial(oracle.stream("grasp").draw, "normal")).gradient
        with restored(everything):
            torch._foreach_add_(everything, before, alpha=self.mu)
            after = estimate(oracle.loss, everything, partial(oracle.stream("grasp").draw, "normal")).gradient
        bend = {p: (b - a) / self.mu for p, a, b in zip(everything, before, after, strict=True)}
        scores = [(-p * bend[p]).reshape(-1) for p in self.maskable]
        worth = torch.cat([s.abs() if self.ranking == "magnitude" else -s for s in scores])
        pruned = torch.zeros_like(worth, dtype=torch.bool)
        pruned[worth.argsort(stable=True)[: round(self.sparsity * worth.numel())]] = True
        return [int(piece.sum()) for piece in torch.split(pruned, [s.numel() for s in scores])]

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, the masks' seed and their numbers of zeros included."""
        return super().state_dict() | {"seed": self._seed, "zeros": self._zeros}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        self._seed, self._zeros = rest.pop("seed", 0), rest.pop("zeros", None)
        super().load_state_dict(rest)
