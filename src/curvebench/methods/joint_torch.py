"""What the optimisers share that treat all parameters as one vector and look at trial points inside a step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, UnmetNeedError
from curvebench.methods.validation import check
from curvebench.oracle.closure_torch import ClosureOracle
from curvebench.oracle.dense_torch import views
from curvebench.oracle.optimizer_torch import OracleOptimizer
from curvebench.oracle.torch import TorchOracle

_LOG = logging.getLogger("curvebench.methods")
_DTYPES = (torch.float32, torch.float64)


class JointOptimizer(OracleOptimizer):
    """One step of one vector: a single parameter group, parameters of one dtype on one device.

    A step whose loss, gradient or curvature is not finite, or whose linear system cannot be solved, changes nothing
    but the count ``skipped``.

    Args:
        params: parameters, or one group of them, float32 or float64; frozen ones are left alone.
        defaults: the options, which a scheduler may change in ``param_groups[0]``.
        dense: the method forms a matrix of all parameters: more than ``max_dimension`` of them are refused.
        max_dimension: the largest number of parameters for which a matrix is formed.

    Raises:
        UnmetNeedError: more parameters than ``max_dimension``.
        CurvebenchError: several groups, dtypes or devices.
    """

    ranges: ClassVar[dict[str, str | tuple[str, ...]]] = {}
    """The allowed interval, or words, of every option."""

    def __init__(
        self, params: Iterable[Any], defaults: dict[str, Any], *, dense: bool = False, max_dimension: int = 0
    ) -> None:
        if dense:
            check(self._name, "max_dimension", max_dimension, "[1, inf)")
        super().__init__(params, defaults)
        self.max_dimension = max_dimension
        self.skipped = 0
        """Steps that were not taken because something was not finite or could not be solved."""
        self.scalars: dict[str, float] = {}
        """Numbers that are carried from step to step, such as an adapted damping."""
        d = sum(p.numel() for p in self.everything())
        if dense and d > max_dimension:
            raise UnmetNeedError(
                f"{self._name}: d = {d} parameters: forms a matrix [d, d] and takes at most max_dimension = "
                f"{max_dimension}"
            )

    @property
    def _name(self) -> str:
        return type(self).__name__

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options outside their range, further groups, and parameters that do not make one vector."""
        if len(self.param_groups) > 1:
            raise CurvebenchError(
                f"{self._name}: {len(self.param_groups)} parameter groups: all are one vector: pass one"
            )
        for name, allowed in self.ranges.items():
            check(self._name, name, group[name], allowed)
        trained = self.everything()
        if not trained:
            raise CurvebenchError(f"{self._name}: no parameter requires a gradient")
        for p in trained:
            if p.dtype not in _DTYPES:
                raise TypeError(f"{self._name}: a parameter has dtype {p.dtype}: must be float32 or float64")
            if (p.dtype, p.device) != (trained[0].dtype, trained[0].device):
                raise CurvebenchError(
                    f"{self._name}: parameters are {p.dtype} on {p.device} and {trained[0].dtype} on "
                    f"{trained[0].device}: all are one vector, so they must agree"
                )

    def everything(self) -> list[Tensor]:
        """All trained parameters."""
        return [p for p in super().everything() if p.requires_grad]

    def points(self, closure: Callable[[], Any] | None) -> TorchOracle | ClosureOracle:
        """This step's oracle: the harness's, or one that evaluates the closure."""
        return self.oracle if self.oracle is not None else ClosureOracle(self.everything(), closure)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the only group."""
        group: dict[str, Any] = self.param_groups[0]
        return group

    # -- moving ------------------------------------------------------------------------------------------------------

    @contextmanager
    def trials(self) -> Iterator[Callable[[Tensor, float], None]]:
        """``move(vector, t)`` puts the parameters at ``start + t vector``, as often as wanted; ``t = 0`` is the start.

        If something raises inside, such as a budget that is spent, the parameters go back to the start.
        """
        live = self.everything()
        start = [p.detach().clone() for p in live]

        def move(vector: Tensor, t: float = 1.0) -> None:
            for p, s, v in zip(live, start, views(vector, live), strict=True):
                if t:
                    torch.add(s, v, alpha=t, out=p.detach())
                else:
                    p.detach().copy_(s)

        try:
            yield move
        except BaseException:
            move(start[0].new_zeros(sum(s.numel() for s in start)), 0.0)
            raise

    def backtrack(
        self,
        oracle: TorchOracle | ClosureOracle,
        move: Callable[[Tensor, float], None],
        direction: Tensor,
        *,
        t: float,
        loss: float,
        slope: float,
        shrink: float,
        tries: int,
        decrease: float,
    ) -> float:
        """Armijo: the first of ``t, shrink t, ...`` with ``f(x + t d) <= f(x) + decrease t g'd``, else 0; moves there.

        Where the decrease asked for is below the rounding of f, equal to within that rounding is enough.
        """
        rounding = 8 * torch.finfo(direction.dtype).eps * abs(loss)
        for _ in range(tries):
            move(direction, t)
            if float(oracle.loss()) <= loss + decrease * t * slope + rounding:
                return t
            t *= shrink
        move(direction, 0.0)
        return 0.0

    def skip(self, loss: Tensor) -> Tensor:
        """Count a step that is not taken; the loss is handed through."""
        self.skipped += 1
        if self.skipped == 1:
            _LOG.warning("%s: step %d skipped: %s", self._name, self._steps, self._why_skipped)
        return loss

    _why_skipped: ClassVar[str] = "the loss, the gradient or the curvature was not finite, or the system singular"

    def notes(self) -> list[str]:
        """Sentences for a record."""
        return [f"{self.skipped} of {self._steps} steps skipped: {self._why_skipped}"] if self.skipped else []

    # -- state -------------------------------------------------------------------------------------------------------

    def vector(self, name: str) -> Tensor | None:
        """A vector ``[d]`` that is carried from step to step, as one copy; None before it was stored."""
        live = self.everything()
        if any(name not in self.state[p] for p in live):
            return None
        return torch.cat([self.state[p][name].reshape(-1) for p in live])

    def store(self, name: str, vector: Tensor) -> None:
        """Keep a vector ``[d]`` for the next step, one tensor per parameter."""
        live = self.everything()
        for p, piece in zip(live, views(vector, live), strict=True):
            self.state[p][name] = piece.clone()

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, its carried numbers included, so that a run continues bit-identically."""
        return super().state_dict() | {"skipped": self.skipped, "scalars": dict(self.scalars)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        rest = dict(state_dict)
        skipped, scalars = rest.pop("skipped", 0), rest.pop("scalars", {})
        super().load_state_dict(rest)
        self.skipped, self.scalars = skipped, dict(scalars)


def finite(*values: Tensor | Sequence[Tensor]) -> bool:
    """Whether all numbers are finite."""
    flat = [t for v in values for t in ([v] if isinstance(v, Tensor) else v)]
    return all(bool(t.isfinite().all()) for t in flat)
