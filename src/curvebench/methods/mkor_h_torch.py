"""MKOR-H in torch: MKOR that goes back to its first-order base when the loss stops falling fast (arXiv 2306.01685).

The paper names "loss decrease rate-based switching" and prints neither a rule nor a threshold; no code was released.
**The rule here is ours.** With the loss ``l_t``, its average ``m_t = smoothing m_(t-1) + (1 - smoothing) l_t`` (without
a start value) and the average of its fall, ``r_t = smoothing r_(t-1) + (1 - smoothing) (m_(t-1) - m_t)``, step ``t`` is
the last of second order if ``t >= patience`` and ``r_t < ratio (m_1 - m_t) / (t - 1)``: the loss falls more slowly than
``ratio`` times its mean pace so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from curvebench.errors import CurvebenchError
from curvebench.methods.mkor_torch import MKOR
from curvebench.methods.validation import check, whole


class MKORH(MKOR):
    """MKOR until the loss slows down, then the base optimiser alone; the arguments of MKOR, and three of its own.

    Call ``opt.report(loss)`` before ``opt.step()``, or pass a closure. After the switch no statistics are asked, the
    inverse factors are gone, and gradients reach the base unchanged; MKOR keeps a gradient's length, so its step size
    still fits. It never switches back.

    Args:
        model: as in MKOR, like all arguments that are not named here.
        patience: no switch before this many steps, at least 2.
        ratio: of the loss's mean pace, below which it switches, in [0, 1); 0: when the averaged loss no longer falls.
        smoothing: decay of the averages of the loss and of its fall, in [0, 1).

    Raises:
        HyperparameterError: a value outside its range.
        CurvebenchError: tied weights, or no supported layer.

    Differs from the paper: the rule is ours, see the module's first lines.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        base: torch.optim.Optimizer | None = None,
        inverse_every: int = 10,
        rule: str = "code",
        reset: str = "identity",
        warmup_steps: int = 0,
        clip: float = 100.0,
        loss_reduction: str = "mean",
        patience: int = 100,
        ratio: float = 0.1,
        smoothing: float = 0.9,
        norm: str = "sum",
        double_average: bool | None = None,
        factor_dtype: torch.dtype | None = None,
        shared: str = "refuse",
        skip: Sequence[str] = (),
        lr: float | None = None,
        momentum: float | None = None,
    ) -> None:
        self.patience = whole(self._name, "patience", patience, "[2, inf)")
        check(self._name, "ratio", ratio, "[0, 1)")
        check(self._name, "smoothing", smoothing, "[0, 1)")
        self.ratio, self.smoothing = ratio, smoothing
        self.switched_at: int | None = None
        """Number of steps that were taken with second order, once it has switched; None before."""
        self._losses = 0
        self._mean = self._first = self._fall = 0.0
        self._reported: float | None = None
        super().__init__(model, base=base, inverse_every=inverse_every, rule=rule, reset=reset,
                         warmup_steps=warmup_steps, clip=clip, loss_reduction=loss_reduction, norm=norm,
                         double_average=double_average, factor_dtype=factor_dtype, shared=shared, skip=skip,
                         lr=lr, momentum=momentum)  # fmt: skip

    def report(self, loss: Any) -> None:
        """Tell the loss of this step, a number or a scalar tensor, before ``step`` or ``precondition``."""
        self._reported = float(loss.detach()) if isinstance(loss, torch.Tensor) else float(loss)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """``precondition(); base.step()``; the closure's loss is reported."""

        def reporting() -> Any:
            assert closure is not None
            loss = closure()
            self.report(loss)
            return loss

        return super().step(None if closure is None else reporting)

    def precondition(self) -> bool:
        """As MKOR's until the switch, then nothing.

        Raises:
            CurvebenchError: outside the harness, if this step's loss was not reported; and what MKOR raises.
        """
        if self.switched_at is None and self._oracle is None and self._reported is None:
            raise CurvebenchError(f"{self._name}: the loss of this step is not known: call opt.report(loss) before it")
        taken = super().precondition()
        if self._reported is not None:
            self._follow(self._reported)
        self._reported = None
        return taken

    def _follow(self, loss: float) -> None:
        """Fold this step's loss into the averages and decide about the next; a loss that is not finite is left out."""
        if self.switched_at is not None or not math.isfinite(loss):
            return
        self._losses += 1
        n, keep = self._losses, self.smoothing
        if n == 1:
            self._mean = self._first = loss
            return
        before = self._mean
        # Weights without a start value: 1 / n at first, 1 - smoothing in the long run.
        self._mean += (loss - before) * (1 - keep) / (1 - keep**n)
        self._fall += (before - self._mean - self._fall) * (1 - keep) / (1 - keep ** (n - 1))
        if n >= self.patience and self._fall < self.ratio * (self._first - self._mean) / (n - 1):
            self.switched_at = self.steps
            self.layer_state = {}
            self._standalone.enabled = False

    def _saw(self, loss: Callable[[], Any]) -> None:
        self.report(loss())

    def _wants_statistics(self) -> bool:
        return self.switched_at is None and super()._wants_statistics()

    def notes(self) -> list[str]:
        """Sentences for a record: whose rule it is, when it switched, and MKOR's."""
        when = (
            "it has not switched"
            if self.switched_at is None
            else f"it switched to {type(self.base).__name__} alone after step {self.switched_at}"
        )
        rule = "MKOR-H's switch is curvebench's own rule (the paper prints none): "
        return [rule + when, *super().notes()]

    def state_dict(self) -> dict[str, Any]:
        """MKOR's, and what the switch has seen."""
        switch = {"switched_at": self.switched_at, "losses": self._losses, "mean": self._mean, "first": self._first,
                  "fall": self._fall}  # fmt: skip
        return {**super().state_dict(), "switch": switch}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        switch = state_dict["switch"]
        self.switched_at, self._losses = switch["switched_at"], switch["losses"]
        self._mean, self._first, self._fall = switch["mean"], switch["first"], switch["fall"]
        super().load_state_dict(state_dict)
