"""Gradient-normalised smoothness in torch (arXiv 2506.13710): Newton regularised by the gradient's norm, with a search.

``lambda = ||g||_* / gamma``;  ``y = theta - (H + lambda B)^-1 g``, so that ``||y - theta||_B <= gamma`` for H >= 0;
``f(theta) - f(y) >= ||grad f(y)||_*^2 / (8 lambda)``: ``theta <- y``, ``gamma <- max(2 gamma, 1e-9)``. Else
``gamma <- gamma / 2``, and again. ``||h||^2 = h'Bh``, ``||g||_*^2 = g'B^-1 g``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from curvebench.errors import HyperparameterError
from curvebench.kernels.newton_torch import spd_solve
from curvebench.methods.joint_torch import JointOptimizer, finite
from curvebench.methods.validation import check
from curvebench.oracle.dense_torch import dense, flat
from curvebench.spec import Query

_GRADIENT = frozenset({Query.GRADIENT})
_NEEDS = {"hessian": frozenset({Query.GRADIENT, Query.HVP}), "ggn": frozenset({Query.GRADIENT, Query.GGNVP})}
SMALLEST = 1e-9
"""gamma is never smaller: halved without end it underflows once f's decrease is lost in rounding."""


class GNS(JointOptimizer):
    """Newton's method whose regularisation is ``||g|| / gamma``, gamma found by doubling and halving.

    For smooth objectives on full batches. Alone, pass ``step`` a closure that returns the loss (``(loss, outputs)`` for
    ``curvature='ggn'``) and does not call ``backward``.

    Args:
        params: parameters, or one group, float32 or float64.
        gamma: at the first step, > 0; the longest step that is tried then.
        curvature: ``'hessian'``, or ``'ggn'``: the Gauss-Newton matrix.
        max_tries: gammas tried in a step, >= 1; if none is accepted the parameters stay.
        max_dimension: more parameters are refused.
        metric: ``'identity'``, or ``B [d, d]``, symmetric and positive definite.

    Raises:
        HyperparameterError: a value outside its range, or a metric of another shape or not positive definite.
        UnmetNeedError: too many parameters.

    Differs from the authors' code: where the factorisation fails (an indefinite matrix) gamma is halved, instead of the
    search ending with the step before; gamma is clamped below while it is halved, too.
    """

    ranges: ClassVar[dict[str, str | tuple[str, ...]]] = {"curvature": tuple(_NEEDS), "max_tries": "[1, inf)"}

    def __init__(
        self,
        params: Iterable[Any],
        *,
        gamma: float = 1.0,
        curvature: str = "hessian",
        max_tries: int = 40,
        max_dimension: int = 4096,
        metric: Tensor | str = "identity",
    ) -> None:
        check(self._name, "gamma", gamma, "(0, inf)")
        super().__init__(params, {"curvature": curvature, "max_tries": max_tries}, dense=True,
                         max_dimension=max_dimension)  # fmt: skip
        self.scalars = {"gamma": float(gamma)}
        if isinstance(metric, str):
            check(self._name, "metric", metric, ("identity",))
        self.metric = None if isinstance(metric, str) else self._checked(metric)
        """``B``, None for the identity."""

    def _checked(self, metric: Tensor) -> Tensor:
        like = self.everything()
        d = sum(p.numel() for p in like)
        if tuple(metric.shape) != (d, d):
            raise HyperparameterError(f"GNS: metric of shape {tuple(metric.shape)}: must be {(d, d)}")
        metric = metric.to(like[0])
        if not torch.equal(metric, metric.T) or int(torch.linalg.cholesky_ex(metric)[1]) != 0:
            raise HyperparameterError("GNS: metric: must be symmetric and positive definite")
        return metric

    def _dual(self, g: Tensor) -> float:
        """``||g||_*``."""
        if self.metric is None:
            return float(g.norm())
        solved = spd_solve(self.metric, None, 0.0, g)
        assert solved is not None
        return math.sqrt(max(float(g @ solved), 0.0))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One gradient, d products, one more gradient for every gamma tried; returns the loss before it."""
        self._steps += 1
        oracle, options = self.points(closure), self.options
        point = oracle.at(needs=_NEEDS[options["curvature"]])
        g, loss = flat(point.gradient()), point.loss()
        if not finite(g, loss):
            return self.skip(loss)
        H = dense(point.hvps if options["curvature"] == "hessian" else point.ggnvps, self.everything())
        oracle.tally(factors=1)
        norm = self._dual(g)
        if not finite(H):
            return self.skip(loss)
        if norm == 0:
            return loss
        with self.trials() as move:
            for _ in range(int(options["max_tries"])):
                scale = norm / self.scalars["gamma"]
                oracle.tally(inverses=1)
                h = spd_solve(H, self.metric, scale, -g)
                if h is not None and self._decreases(oracle, move, float(loss), h, scale):
                    self.scalars["gamma"] = max(2 * self.scalars["gamma"], SMALLEST)
                    return loss
                self.scalars["gamma"] = max(self.scalars["gamma"] / 2, SMALLEST)
            move(g, 0.0)
        return loss

    def _decreases(
        self, oracle: Any, move: Callable[[Tensor, float], None], loss: float, h: Tensor, scale: float
    ) -> bool:
        move(h, 1.0)
        there = oracle.at(needs=_GRADIENT)
        squared = self._dual(flat(there.gradient())) ** 2
        return loss - float(there.loss()) >= squared / (8 * scale)

    @property
    def gamma(self) -> float:
        """The gamma that the next step tries first."""
        return self.scalars["gamma"]
