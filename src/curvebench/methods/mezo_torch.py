"""MeZO in torch (Malladi et al. 2023, arXiv 2305.17333): two-point zeroth-order SGD that replays its noise.

``z ~ N(0, I)``;  ``c = (f(theta + eps z) - f(theta - eps z)) / (2 eps)``;
``theta <- theta - lr (c z + weight_decay theta)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.methods.validation import check
from curvebench.oracle.standalone_torch import AutogradOracle
from curvebench.oracle.torch import TorchOracle

CHUNK = 65536
"""Scalars drawn at a time: a multiple of 16, for which torch's CPU draws equal one undivided draw bit for bit."""


class MeZO(torch.optim.Optimizer):
    """Memory-efficient zeroth-order SGD.

    Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed and autograd is off inside.

    Args:
        params: parameters or groups, of floating dtype.
        lr: step size, > 0.
        eps: half the distance between the two evaluations, > 0.
        weight_decay: decay, multiplied by lr, >= 0.
        restore: ``'replay'``: the noise is drawn three times, and resetting the weights is fused with the update
            (``theta += (eps - lr c) z``); no memory, drift of rounding size, refused in half precision, where the reset
            loses the weights. ``'copy'``: a copy of the weights is kept during the step; bit-exact.
        generator: source of the noise; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range, or ``restore='replay'`` with half-precision parameters.
        CurvebenchError: ``step`` without a closure.

    Differs from the authors' code: three draws instead of four, in place, in chunks; the global generator is untouched.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-6,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
        restore: str = "replay",
        generator: torch.Generator | None = None,
    ) -> None:
        check("MeZO", "eps", eps, "(0, inf)")
        check("MeZO", "restore", restore, ("replay", "copy"))
        self.eps = eps
        self.restore = restore
        self.oracle: TorchOracle | None = None
        self._generator = generator
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; a bad option is refused and nothing is added."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        check("MeZO", "lr", group["lr"], "(0, inf)")
        check("MeZO", "weight_decay", group["weight_decay"], "[0, inf)")
        for p in group["params"]:
            if not p.is_floating_point():
                raise TypeError(f"MeZO: a parameter has dtype {p.dtype}: must be floating")
            if self.restore == "replay" and p.dtype in (torch.float16, torch.bfloat16):
                raise HyperparameterError(
                    f"MeZO: restore = 'replay' with {p.dtype} parameters: adding and subtracting noise does not "
                    "restore half-precision weights; use restore='copy'"
                )

    def _all(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One step of two evaluations; returns ``f(theta + eps z)``."""
        if self.oracle is None and self._generator is None:
            self._generator = torch.Generator(self._all()[0].device).manual_seed(torch.initial_seed())
        oracle = self.oracle or AutogradOracle(self._all(), closure, self._generator)
        eps = self.eps
        clean = [p.clone() for p in self._all()] if self.restore == "copy" else None
        self._perturb(oracle, eps)
        above = oracle.loss()
        if clean is None:
            self._perturb(oracle, -2 * eps)
        else:
            torch._foreach_copy_(self._all(), clean)
            self._perturb(oracle, -eps)
        below = oracle.loss()
        slope = float((above - below) / (2 * eps))
        if clean is not None:
            torch._foreach_copy_(self._all(), clean)
        for group, piece, z in self._noise(oracle):
            keep = 1 - group["lr"] * group["weight_decay"]
            if keep != 1:
                piece.mul_(keep)
            piece.add_(z, alpha=(keep * eps if clean is None else 0.0) - group["lr"] * slope)
        return above

    def _perturb(self, oracle: Any, scale: float) -> None:
        for _, piece, z in self._noise(oracle):
            piece.add_(z, alpha=scale)

    def _noise(self, oracle: Any) -> Iterator[tuple[dict[str, Any], Tensor, Tensor]]:
        """Replay the step's noise: ``(group, flat view of parameters, z of the same shape)`` piece by piece."""
        stream = oracle.stream("mezo")
        for group in self.param_groups:
            for p in group["params"]:
                if not p.is_contiguous() or p.numel() <= CHUNK + 16:
                    yield group, p, stream.draw("normal", tuple(p.shape))
                    continue
                flat = p.view(-1)
                whole = (flat.numel() - 16) // CHUNK * CHUNK  # the last piece keeps at least 16 scalars
                for start in range(0, whole, CHUNK):
                    yield group, flat[start : start + CHUNK], stream.draw("normal", (CHUNK,))
                yield group, flat[whole:], stream.draw("normal", (flat.numel() - whole,))

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, its noise generator included."""
        state = super().state_dict()
        state["generator"] = None if self._generator is None else self._generator.get_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        saved = rest.pop("generator", None)
        super().load_state_dict(rest)
        if saved is not None:
            if self._generator is None:
                self._generator = torch.Generator(self._all()[0].device)
            self._generator.set_state(saved.cpu())
