"""M-FAC in torch (Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356): the inverse of the Fisher of the last gradients.

Per step with gradient ``grad`` of all parameters as one vector: ``g = grad + weight_decay theta`` replaces the oldest
of the ``m`` rows of ``G``; ``u = F^-1 g`` with ``F = damping I + (1/m) G'G``;
``v = momentum v + (1 - momentum) u``;  ``theta <- theta - lr v``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, HyperparameterError
from curvebench.kernels.mfac_torch import FORMULAS, SlidingWindow
from curvebench.methods.validation import check
from curvebench.oracle.standalone_torch import AutogradOracle
from curvebench.oracle.torch import TorchOracle
from curvebench.spec import Query

_NEEDS = frozenset({Query.GRADIENT})
_SHARED = ("window", "damping", "momentum", "formula", "sparse")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TENSORS = ("gradients", "gram", "velocity")


class MFAC(torch.optim.Optimizer):
    """Matrix-free approximations of the inverse empirical Fisher matrix, over a sliding window of gradients.

    All parameters are one vector of length d. ``G [window, d]`` is kept in their dtype; with half-precision parameters
    in float32, like all arithmetic. A parameter without gradient counts as zero in the window, without decay, and does
    not move. A step whose gradient (or its products with the window) is not finite changes nothing and is counted in
    ``skipped``.

    The step is long: ``|F^-1 g| <= m / |g|`` and about that for the first gradient, so ``lr`` goes with ``1 / window``.

    Args:
        params: parameters or groups, of floating dtype, on one device. ``lr``, ``weight_decay`` and ``maximize`` may
            differ between groups.
        lr: step size, >= 0; 0 fills the window and moves nothing.
        window: gradients that are kept, ``m`` >= 1; also the divisor while fewer have been seen.
        damping: > 0.
        momentum: of the average of preconditioned gradients, which starts at zero and is not corrected; in [0, 1).
        weight_decay: added to the gradient times the parameter before it enters the window, >= 0.
        formula: ``'in-span'``; ``'official'`` is the authors' recursion, which loses digits in float32.
        sparse: entries that are zero when their group is added stay zero and take no room in the window.
        maximize: ascend.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter that is not floating.
        CurvebenchError: parameters on several devices, no gradient at all, or a sparse one.

    Differs from the paper: nothing known. From the authors' code: ``formula``; their window of at most 1024 rows, CUDA
    only, without ``state_dict``, has no counterpart.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        window: int = 1024,
        damping: float = 1e-5,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        formula: str = "in-span",
        sparse: bool = False,
        maximize: bool = False,
    ) -> None:
        check("MFAC", "window", window, "[1, inf)")
        if window != int(window):
            raise HyperparameterError(f"MFAC: window = {window!r}: must be a whole number")
        check("MFAC", "damping", damping, "(0, inf)")
        check("MFAC", "momentum", momentum, "[0, 1)")
        check("MFAC", "formula", formula, FORMULAS)
        self.window = int(window)
        self.damping = damping
        self.momentum = momentum
        self.formula = formula
        self.sparse = sparse
        self.oracle: TorchOracle | None = None
        self.skipped = 0
        self._live: list[Tensor] = []  # with `sparse`: for each parameter the flat indices that move
        self._ring: SlidingWindow | None = None
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "maximize": maximize})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; past gradients count as zero there. A bad option is refused and nothing is added."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise
        if self.sparse:
            self._live += [p.detach().flatten().nonzero()[:, 0] for p in self.param_groups[-1]["params"]]
        if self._ring is not None:
            self._widen(self._ring, self._size())

    def _check_group(self, group: dict[str, Any]) -> None:
        check("MFAC", "lr", group["lr"], "[0, inf)")
        check("MFAC", "weight_decay", group["weight_decay"], "[0, inf)")
        for name in _SHARED:
            if name in group:
                raise HyperparameterError(f"MFAC: {name} = {group[name]!r} in a group: all parameters share one window")
        for p in group["params"]:
            if p.dtype not in _DTYPES or p.layout != torch.strided:
                raise TypeError(
                    f"MFAC: a parameter has dtype {p.dtype} and layout {p.layout}: must be floating and strided"
                )
            if p.device != self._all()[0].device:
                raise CurvebenchError(
                    f"MFAC: parameters on {self._all()[0].device} and {p.device}: must be on one device"
                )

    def _all(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the loss when it is known."""
        oracle = self.oracle or AutogradOracle(self._all(), closure, None)
        point = oracle.at(needs=_NEEDS)
        gradients = dict(zip(oracle.parameters, point.gradient(), strict=True))
        vector = self._vector(gradients)
        ring = self._window(vector)
        out = vector  # the gradient is in the window by then: its memory holds the result
        if self.momentum:
            out = self._state().setdefault("velocity", torch.zeros_like(vector))
        velocity = ring.update(vector, out, keep=self.momentum, scale=1 - self.momentum)
        if velocity is None:
            self.skipped += 1
            return point.loss()
        oracle.tally(factors=1, inverses=1)
        self._move(gradients, velocity)
        return point.loss()

    # -- one vector of all parameters -----------------------------------------------------------------------------

    def _vector(self, gradients: dict[Tensor, Tensor]) -> Tensor:
        """``g [d]``: the gradients with decay, one after the other in the order of the groups."""
        dtype = self._dtype()
        everything = self._all()
        parts = [gradients[p].flatten() if p in gradients else p.new_zeros(p.numel()) for p in everything]
        vector = torch.cat(parts).to(dtype)
        views = dict(zip(everything, torch.split(vector, [p.numel() for p in everything]), strict=True))
        for group in self.param_groups:
            members = [p for p in group["params"] if p in gradients]
            mine = [views[p] for p in members]
            if group["maximize"] and mine:
                torch._foreach_neg_(mine)
            if group["weight_decay"] and mine:
                torch._foreach_add_(mine, [p.flatten() for p in members], alpha=group["weight_decay"])
        return vector if not self.sparse else torch.cat(
            [views[p][live] for p, live in zip(everything, self._live, strict=True)])  # fmt: skip

    def _move(self, gradients: dict[Tensor, Tensor], velocity: Tensor) -> None:
        """``theta -= lr v`` for the parameters that have a gradient."""
        everything = self._all()
        sizes = [len(live) for live in self._live] if self.sparse else [p.numel() for p in everything]
        pieces = torch.split(velocity, sizes)
        if self.sparse:
            pieces = tuple(
                _spread(p, live, piece) for p, live, piece in zip(everything, self._live, pieces, strict=True)
            )
        views = dict(zip(everything, pieces, strict=True))
        for group in self.param_groups:
            members = [p for p in group["params"] if p in gradients]
            if members:
                torch._foreach_add_(members, [views[p].view_as(p) for p in members], alpha=-group["lr"])

    def _dtype(self) -> torch.dtype:
        return torch.float64 if any(p.dtype == torch.float64 for p in self._all()) else torch.float32

    # -- state ----------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """The optimiser's tensors, one for all parameters: filed under the first, as in torch's L-BFGS."""
        state: dict[str, Any] = self.state[self._all()[0]]
        return state

    def _window(self, vector: Tensor) -> SlidingWindow:
        if self._ring is None:
            self._ring = SlidingWindow(self.window, len(vector), self.damping, dtype=vector.dtype, device=vector.device,
                                       formula=self.formula)  # fmt: skip
            self._state().update(gradients=self._ring.gradients, gram=self._ring.store)
        self._ring.damping = self.damping
        return self._ring

    def _widen(self, ring: SlidingWindow, size: int) -> None:
        ring.widen(size)
        state = self._state()
        state["gradients"] = ring.gradients
        if "velocity" in state:
            old = state["velocity"]
            state["velocity"] = torch.cat([old, old.new_zeros(size - len(old))])

    def _size(self) -> int:
        """``d``: how many numbers move."""
        return sum(map(len, self._live)) if self.sparse else sum(p.numel() for p in self._all())

    def state_dict(self) -> dict[str, Any]:
        """The window, its products, the velocity and the counts, so that a run continues bit-identically."""
        state = super().state_dict()
        state["slot"] = self._ring.slot if self._ring is not None else 0
        state["skipped"] = self.skipped
        state["live"] = list(self._live)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; its tensors are copied.

        Raises:
            CurvebenchError: it belongs to another window or to other parameters.
        """
        rest = dict(state_dict)
        slot, skipped, live = rest.pop("slot", 0), rest.pop("skipped", 0), rest.pop("live", [])
        saved = rest.pop("state").get(0, {})
        first = self._all()[0]
        live = [index.to(first.device) for index in live]
        if bool(live) != self.sparse:
            raise CurvebenchError(f"MFAC: sparse = {self.sparse}, but the state was saved with sparse = {bool(live)}")
        size = sum(map(len, live)) if self.sparse else self._size()
        if saved and (shape := tuple(saved["gradients"].shape)) != (self.window, size):
            raise CurvebenchError(
                f"MFAC: the saved window has the shape {shape}, this optimiser's has {(self.window, size)}"
            )
        super().load_state_dict({**rest, "state": {}})  # torch would round the window to the first parameter's dtype
        self.skipped, self._live, self._ring = skipped, live, None
        self.state.clear()
        if not saved:
            return
        tensors = {name: saved[name].detach().to(first.device, copy=True) for name in _TENSORS if name in saved}
        if (dtype := tensors["gradients"].dtype) != self._dtype():
            raise CurvebenchError(f"MFAC: the saved window is {dtype}, the parameters need {self._dtype()}")
        self._ring = SlidingWindow(1, 1, self.damping, dtype=dtype, device=first.device, formula=self.formula)
        self._ring.gradients, self._ring.store, self._ring.slot = tensors["gradients"], tensors["gram"], slot
        self._state().update(tensors)


def _spread(parameter: Tensor, live: Tensor, values: Tensor) -> Tensor:
    """``values`` at the flat indices ``live`` of a vector as long as the parameter, zero elsewhere."""
    return values.new_zeros(parameter.numel()).index_copy_(0, live, values)
