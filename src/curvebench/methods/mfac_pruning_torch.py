"""Gradual pruning with M-FAC in torch (Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356): optimal brain surgeon steps.

Weights with the smallest ``w_p^2 / (2 [F^-1]_pp)`` are removed, over all given parameters at once; the others move by
``F^-1 t`` with ``t_p = -w_p/[F^-1]_pp`` on the removed ones. ``F = damping I + (1/m) G'G`` is made of ``m`` fresh
gradients of the weights that are left, each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.mfac_static_torch import StaticInverse, obs_scores, obs_update
from curvebench.methods.validation import check, whole
from curvebench.oracle.standalone_torch import AutogradOracle
from curvebench.oracle.torch import TorchOracle
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT})


class MFACPruner:
    """Removes weights, and keeps them removed.

    ``observe()`` after each of ``window`` backward passes, then ``prune(density)``; ``apply_masks()`` after every step
    of the optimiser in between. :meth:`gradual` does the first two. Put the model in eval mode for the gradients.

    Args:
        params: what may be pruned; usually weights of convolutions and linear layers, without biases.
        window: gradients that make up ``F``, ``m`` >= 1.
        damping: > 0.
        block: the Fisher matrix is cut into diagonal blocks of so many remaining weights; None: none of it is cut.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter that is not floating.
        CurvebenchError: a parameter is given twice.

    Differs from the authors' code: exactly ``window`` gradients enter (theirs stops one short and keeps a zero row); a
    gradient that is not finite is left out and counted in ``skipped``.
    """

    def __init__(
        self, params: Iterable[Tensor], *, window: int = 64, damping: float = 1e-5, block: int | None = 128
    ) -> None:
        self.window = whole("MFACPruner", "window", window, "[1, inf)")
        check("MFACPruner", "damping", damping, "(0, inf)")
        self.block = None if block is None else whole("MFACPruner", "block", block, "[1, inf)")
        self.params = list(params)
        if not self.params:
            raise HyperparameterError("MFACPruner: params = []: must hold at least one parameter")
        if len({id(p) for p in self.params}) < len(self.params):
            raise CurvebenchError("MFACPruner: a parameter is given twice: tied weights count once")
        for p in self.params:
            if not p.is_floating_point():
                raise TypeError(f"MFACPruner: a parameter has dtype {p.dtype}: must be floating")
        self.damping = damping
        self.masks = [torch.ones_like(p, dtype=torch.bool) for p in self.params]
        self.oracle: TorchOracle | None = None
        self.skipped = 0
        self.observed = 0
        self._gradients: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of prunable weights, pruned ones included."""
        return sum(p.numel() for p in self.params)

    @property
    def density(self) -> float:
        """Fraction of them that is left."""
        return len(self._kept()) / self.size

    @torch.no_grad()
    def observe(self, closure: Callable[[], Any] | None = None) -> bool:
        """Let the parameters' gradients be one row of ``G``; False if they are not finite.

        Args:
            closure: computes the loss anew, and may call ``backward``; by default the gradients are there.

        Raises:
            CurvebenchError: the window is full, or no parameter has a gradient.
        """
        if self.observed == self.window:
            raise CurvebenchError(f"MFACPruner: {self.window} gradients have been observed: prune before the next one")
        oracle = self.oracle or AutogradOracle(self.params, closure, None)
        gradients = dict(zip(oracle.parameters, oracle.at(needs=_NEEDS).gradient(), strict=True))
        row = self._flat([gradients.get(p, torch.zeros_like(p)) for p in self.params])
        if not bool(row.isfinite().all()):
            self.skipped += 1
            return False
        if self._gradients is None:
            self._gradients = row.new_empty(self.window, len(row))
        self._gradients[self.observed] = row
        self.observed += 1
        oracle.tally(factors=1)
        return True

    @torch.no_grad()
    def scores(self) -> Tensor:
        """``w_p^2 / (2 [F^-1]_pp)`` of the weights that are left, in the order of the parameters.

        Raises:
            CurvebenchError: fewer than ``window`` gradients have been observed.
        """
        return obs_scores(self._flat(self.params), self._inverse().diagonal())

    @torch.no_grad()
    def prune(self, density: float) -> None:
        """Remove weights until ``density`` of all prunable ones are left, and forget the gradients.

        Args:
            density: in [0, 1]; at or above the present one nothing is removed.

        Raises:
            HyperparameterError: it lies outside.
            CurvebenchError: fewer than ``window`` gradients have been observed.
        """
        check("MFACPruner", "density", density, "[0, 1]")
        kept = self._kept()
        count = round(self.size * (1 - density)) - (self.size - len(kept))
        if count > 0:
            inverse, weights = self._inverse(), self._flat(self.params)
            if self.oracle is not None:
                self.oracle.tally(inverses=1)
            diagonal = inverse.diagonal()
            drop = torch.argsort(obs_scores(weights, diagonal), stable=True)[:count]
            moved = obs_update(inverse, weights, diagonal, drop)
            whole = weights.new_zeros(self.size).index_copy_(0, kept, moved)
            left = torch.zeros(self.size, dtype=torch.bool, device=whole.device).index_fill_(0, kept, True)
            left[kept[drop]] = False
            sizes = [p.numel() for p in self.params]
            for p, mask, values, live in zip(
                self.params, self.masks, torch.split(whole, sizes), torch.split(left, sizes), strict=True
            ):
                p.copy_(values.view_as(p))
                mask.copy_(live.view_as(mask))
        self._gradients, self.observed = None, 0

    def gradual(self, density: float, steps: int, closure: Callable[[], Any]) -> None:
        """Prune to ``density`` in ``steps`` steps of equal ratio, each with a window of fresh gradients.

        Args:
            density: target, in (0, 1].
            steps: >= 1.
            closure: computes the loss on the next mini-batch, and may call ``backward``.

        Raises:
            CurvebenchError: ``window`` gradients in a row are not finite.
        """
        for target in schedule(self.density, density, steps):
            bad = 0
            while self.observed < self.window:
                for p in self.params:
                    p.grad = None
                bad = 0 if self.observe(closure) else bad + 1
                if bad == self.window:
                    raise CurvebenchError(f"MFACPruner: {bad} gradients in a row are not finite")
            self.prune(target)

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set removed weights to zero again: an optimiser with momentum or decay has moved them."""
        for p, mask in zip(self.params, self.masks, strict=True):
            p.masked_fill_(~mask, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Masks, the gradients observed so far and the counts."""
        gradients = None if self._gradients is None else self._gradients[: self.observed]
        return {"masks": self.masks, "gradients": gradients, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; its tensors are copied.

        Raises:
            CurvebenchError: it belongs to other parameters or to a smaller window.
        """
        shapes = [tuple(mask.shape) for mask in state["masks"]]
        if shapes != [tuple(p.shape) for p in self.params]:
            raise CurvebenchError(f"MFACPruner: the saved masks have the shapes {shapes}: these are other parameters")
        rows = state["gradients"]
        if rows is not None and len(rows) > self.window:
            raise CurvebenchError(f"MFACPruner: {len(rows)} gradients were saved, the window has {self.window}")
        for mask, saved in zip(self.masks, state["masks"], strict=True):
            mask.copy_(saved)
        self.skipped, self.observed, self._gradients = state["skipped"], 0, None
        if rows is not None:
            device = self.params[0].device
            self._gradients = rows.new_empty(self.window, rows.shape[1], device=device)
            self._gradients[: len(rows)] = rows
            self.observed = len(rows)

    def _inverse(self) -> StaticInverse:
        if self._gradients is None or self.observed < self.window:
            raise CurvebenchError(
                f"MFACPruner: {self.observed} of {self.window} gradients have been observed: call observe() after "
                "backward() on more mini-batches, or take a smaller window"
            )
        return StaticInverse(self._gradients, self.damping, block=self.block)

    def _kept(self) -> Tensor:
        """Flat indices of the weights that are left."""
        return torch.cat([mask.flatten() for mask in self.masks]).nonzero()[:, 0]

    def _flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The remaining entries as one vector, in float32 at least."""
        vector = torch.cat([t.detach().flatten() for t in tensors])[self._kept()]
        return vector if vector.dtype == torch.float64 else vector.float()


def schedule(start: float, target: float, steps: int) -> list[float]:
    """Densities after each of ``steps`` prunings from ``start`` to ``target``: ``start (target/start)^(j/steps)``.

    Raises:
        HyperparameterError: a density outside (0, 1], a target above the start, or no step.
    """
    check("MFACPruner", "start", start, "(0, 1]")
    check("MFACPruner", "target", target, f"(0, {start}]")
    check("MFACPruner", "steps", steps, "[1, inf)")
    return [*(start * (target / start) ** (j / steps) for j in range(1, steps)), target]
