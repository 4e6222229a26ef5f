"""Gradual M-FAC pruning as an optimiser in torch: SGD with momentum, interrupted by optimal-brain-surgeon steps.

Per event: ``recomputations`` times, ``window`` steps that only look (one gradient each, the weights rest) and then a
removal by :class:`~curvebench.methods.mfac_pruning_torch.MFACPruner`; then ``prune_every`` steps of
``b <- momentum b + grad + weight_decay theta``;  ``theta <- mask (theta - lr b)``. The first event is at the start;
after ``prunings`` events training goes on. Of ``n = prunings recomputations`` removals the j-th leaves
``density^(j/n)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.methods.mfac_pruning_torch import MFACPruner
from curvebench.methods.validation import check
from curvebench.oracle.optimizer_torch import OracleOptimizer
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT})
_WHOLE = ("window", "prunings", "recomputations", "prune_every", "block")


class MFACPruning(OracleOptimizer):
    """SGD with momentum that prunes on the way. Every step asks one gradient, also those that only look.

    Weights of two dimensions or more are pruned, over all of them at once; biases and norms are not. A group may say
    otherwise with ``prune=True`` or ``False``. A gradient that is not finite changes nothing and is counted in
    ``skipped``. Alone, put the model in eval mode while :attr:`looking`.

    Args:
        params: parameters or groups, float32 or float64, on one device.
        lr: step size, >= 0.
        momentum: in [0, 1).
        weight_decay: coupled decay, >= 0.
        density: fraction of the prunable weights that is left in the end, in (0, 1].
        prunings: events, >= 0; 0 is SGD.
        recomputations: removals of an event, each from fresh gradients, >= 1.
        prune_every: training steps between two events, >= 1.
        window: gradients of a removal, >= 1.
        damping: > 0.
        block: the Fisher matrix is cut into diagonal blocks of so many remaining weights; 0: none of it is cut.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: parameters of several dtypes, or of another than float32 and float64.

    Differs from the authors' script: steps, not epochs; equal ratios between events too, where theirs lists sparsities;
    learning rates do not cycle with the events; exactly ``window`` gradients. Of BatchNorm's statistics nothing is
    refreshed here.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.005,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        density: float = 0.125,
        prunings: int = 3,
        recomputations: int = 16,
        prune_every: int = 1000,
        window: int = 64,
        damping: float = 1e-5,
        block: int = 128,
    ) -> None:
        given = {"density": density, "prunings": prunings, "recomputations": recomputations,
                 "prune_every": prune_every, "window": window, "damping": damping, "block": block}  # fmt: skip
        allowed = {"density": "(0, 1]", "damping": "(0, inf)", "prunings": "[0, inf)", "block": "[0, inf)"}
        for name, value in given.items():
            check("MFACPruning", name, value, allowed.get(name, "[1, inf)"))
            if name in _WHOLE and value != int(value):
                raise HyperparameterError(f"MFACPruning: {name} = {value!r}: must be a whole number")
        self.density, self.damping = float(density), float(damping)
        self.prunings, self.recomputations, self.prune_every = int(prunings), int(recomputations), int(prune_every)
        self.window, self.block = int(window), int(block)
        self.skipped = 0
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "prune": None})

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range, and half precision, in which a Fisher matrix has no inverse."""
        for name, allowed in (("lr", "[0, inf)"), ("momentum", "[0, 1)"), ("weight_decay", "[0, inf)")):
            check("MFACPruning", name, group[name], allowed)
        first = self.everything()[0]
        for p in group["params"]:
            if p.dtype not in (torch.float32, torch.float64) or p.dtype != first.dtype:
                raise TypeError(
                    f"MFACPruning: a parameter has dtype {p.dtype}: all must be float32, or all must be float64"
                )
        if self.state:
            raise CurvebenchError("MFACPruning: a group cannot be added after the first step: the window is one")

    # -- the schedule ----------------------------------------------------------------------------------------------

    @property
    def looking(self) -> bool:
        """Whether the next step only looks at a gradient."""
        return self._removal(self._steps) is not None

    def _removal(self, step: int) -> tuple[int, int] | None:
        """``(which removal from 1 on, row of its window)`` that a step serves; None for a training step."""
        looks = self.recomputations * self.window
        event, position = divmod(step, looks + self.prune_every)
        if event >= self.prunings or position >= looks or not self.prunable():
            return None
        return event * self.recomputations + position // self.window + 1, position % self.window

    def prunable(self) -> list[Tensor]:
        """What may be pruned."""
        return [
            p
            for group in self.param_groups
            for p in group["params"]
            if (p.dim() > 1 if group["prune"] is None else group["prune"])
        ]

    @property
    def reached(self) -> float:
        """Fraction of the prunable weights that is left."""
        prunable = self.prunable()
        kept = sum(int(self.state[p]["mask"].count_nonzero()) if p in self.state else p.numel() for p in prunable)
        return kept / max(1, sum(p.numel() for p in prunable))

    # -- steps -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, which looks or trains; returns the loss when it is known."""
        oracle, everything = self.ask(closure), self.everything()
        point = oracle.at(needs=_NEEDS)
        gradients = dict(zip(oracle.parameters, point.gradient(), strict=True))
        buffers, masks = self.slots(everything, "momentum_buffer"), self.slots(everything, "mask", 1.0)
        if not all(bool(g.isfinite().all()) for g in gradients.values()):
            self.skipped += 1
            return point.loss()
        removal = self._removal(self._steps)
        self._steps += 1
        if removal is not None:
            self._look(gradients, *removal)
            oracle.tally(factors=1, inverses=int(removal[1] + 1 == self.window))
            return point.loss()
        for (group, params, momenta), (_, _, live) in zip(self.by_group(buffers), self.by_group(masks), strict=True):
            for p, b, mask in zip(params, momenta, live, strict=True):
                if p in gradients:
                    b.mul_(group["momentum"]).add_(gradients[p]).add_(p, alpha=group["weight_decay"])
                    p.add_(b, alpha=-group["lr"]).mul_(mask)
        return point.loss()

    def _look(self, gradients: dict[Tensor, Tensor], removal: int, row: int) -> None:
        everything, prunable = self.everything(), self.prunable()
        state = self.state[everything[0]]
        if "window" not in state:
            state["window"] = everything[0].new_zeros(self.window, sum(p.numel() for p in everything))
        window = state["window"]
        torch.cat([gradients.get(p, torch.zeros_like(p)).flatten() for p in everything], out=window[row])
        if row + 1 < self.window:
            return
        pruner = MFACPruner(prunable, window=self.window, damping=self.damping, block=self.block or None)
        masks = [self.state[p]["mask"] for p in prunable]
        may = {id(p) for p in prunable}
        left = torch.cat([(self.state[p]["mask"] * (id(p) in may)).flatten() for p in everything]).bool()
        pruner.load_state_dict({"masks": [m.bool() for m in masks], "gradients": window[:, left], "skipped": 0})
        pruner.prune(self.density ** (removal / (self.prunings * self.recomputations)))
        for mask, found in zip(masks, pruner.masks, strict=True):
            mask.copy_(found)

    def notes(self) -> list[str]:
        """The sparsity that was reached, and what was skipped."""
        prunable = self.prunable()
        done = self._removal(self._steps)
        total = self.prunings * self.recomputations
        removals = (done[0] - 1) if done else min(self._events() * self.recomputations, total * bool(prunable))
        sentences = [
            f"density {self.reached:.4g} of {sum(p.numel() for p in prunable)} prunable weights, "
            f"sparsity {1 - self.reached:.4g}, after {removals} of {total} removals"
        ]
        if self.skipped:
            sentences.append(f"{self.skipped} steps skipped: the gradient was not finite")
        return sentences

    def _events(self) -> int:
        """Events that are over or whose training steps run."""
        return self._steps // (self.recomputations * self.window + self.prune_every) + 1

    def state_dict(self) -> dict[str, Any]:
        """Momenta, masks, the window and the counts, so that a run continues bit-identically."""
        return super().state_dict() | {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        self.skipped = rest.pop("skipped", 0)
        super().load_state_dict(rest)
