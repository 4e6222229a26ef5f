"""LOZO in torch (Chen et al. 2024): MeZO along directions of low rank, whose right factor stays for many steps.

Matrices ``W [m, n]``: ``Z = U V'``, ``U [m, r]`` drawn every step, ``V [n, r]`` every ``period`` steps; vectors:
``Z ~ N(0, I)``. ``c = (f(theta + eps Z) - f(theta - eps Z)) / (2 eps)``;
``theta <- theta - lr (c Z + weight_decay theta)``. Both factors are drawn again whenever they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from curvebench.kernels.replay_torch import Probe, noise, part, refuse_half
from curvebench.methods.validation import check, whole
from curvebench.oracle.optimizer_torch import LossOptimizer


class LOZO(LossOptimizer):
    """Low-rank zeroth-order SGD. Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone; tensors of more than two
            dimensions are matrices ``[first, rest]``.
        lr: step size, >= 0.
        eps: half the distance between the two evaluations, > 0.
        rank: r >= 1.
        period: steps between two draws of ``V``, >= 1.
        weight_decay: decay, multiplied by lr, >= 0.
        restore: ``'replay'``: walk back by drawing the noise again, fused with the update (drift of rounding size,
            refused in half precision); ``'copy'``: keep a copy of the weights during the step, bit-exact.
        generator: source of the noise; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
        CurvebenchError: ``step`` without a closure.

    Differs from the authors' code: there a step that redraws ``V`` updates along another ``U`` than it measured (the
    update's ``U`` starts at the beginning of the stream that ``V`` was drawn from); here both have streams of their
    own, so the update is always along the direction that was measured. ``V`` is not stored but drawn again from its
    seed. Like the code, no factor 1/r.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-6,
        eps: float = 1e-3,
        rank: int = 2,
        period: int = 50,
        weight_decay: float = 0.0,
        restore: str = "replay",
        generator: torch.Generator | None = None,
    ) -> None:
        check("LOZO", "eps", eps, "(0, inf)")
        check("LOZO", "restore", restore, ("replay", "copy"))
        self.eps, self.restore = eps, restore
        self.rank, self.period = (whole("LOZO", n, v, "[1, inf)") for n, v in (("rank", rank), ("period", period)))
        self._seed = 0  # of V
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay}, generator)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range, and half precision with ``restore='replay'``."""
        for name, allowed in (("lr", "[0, inf)"), ("weight_decay", "[0, inf)")):
            check("LOZO", name, group[name], allowed)
        if self.restore == "replay":
            refuse_half("LOZO", group["params"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step of two losses; returns their mean."""
        oracle, everything = self.ask(closure), self.everything()
        if self._steps % self.period == 0:
            self._seed = self.fresh_seed(oracle, "lozo-v")
        self._steps += 1

        def direction() -> Iterator[tuple[dict[str, Any], Tensor, Tensor]]:
            draw = partial(oracle.stream("lozo").draw, "normal")
            generator = torch.Generator(everything[0].device).manual_seed(self._seed)
            for group, p in zip(self.owners(), everything, strict=True):
                if p.dim() < 2:
                    yield from ((group, part(p, rows), z) for _, rows, z in noise([p], draw))
                else:
                    v = torch.randn(p[0].numel(), self.rank, generator=generator, device=generator.device).to(p)
                    yield group, p, (draw((p.shape[0], self.rank)).to(p) @ v.T).view(p.shape)

        with Probe(everything, lambda: ((p, z) for _, p, z in direction()), self.restore == "copy") as probe:
            probe.to(self.eps)
            above = oracle.loss().clone()
            probe.to(-self.eps)
            below = oracle.loss()
            slope = float(above - below) / (2 * self.eps)
            if not self.usable(slope):
                return (above + below) / 2
            rest = probe.release()
        for group, theta, z in direction():
            keep = 1 - group["lr"] * group["weight_decay"]
            if keep != 1:
                theta.mul_(keep)
            theta.add_(z, alpha=keep * rest - group["lr"] * slope)
        return (above + below) / 2

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, the seed of ``V`` included."""
        return super().state_dict() | {"seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        self._seed = rest.pop("seed", 0)
        super().load_state_dict(rest)
