"""The oracle of an optimiser that is used alone and evaluates its own points: a closure, asked as often as needed.

The closure returns the loss at the live parameters and does not call ``backward``; for Gauss-Newton products it returns
``(loss, outputs)``, the loss computed from the model's outputs. Nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError
from curvebench.kernels.batched_products_torch import gauss_newton_products, hessian_products
from curvebench.kernels.products_torch import differentiate, hessian_vector_product
from curvebench.oracle.double_backward_torch import SECOND_DERIVATIVES, explained, math_attention
from curvebench.spec import Query

_ADVICE = "step() needs a closure that returns the loss at the live parameters and does not call backward()"


class ClosureOracle:
    """Answers queries at the live parameters by evaluating a closure.

    Args:
        parameters: the trained parameters.
        closure: returns the loss, or ``(loss, outputs)``.

    Raises:
        CurvebenchError: there is no closure.
    """

    def __init__(self, parameters: Sequence[Tensor], closure: Callable[[], Any] | None) -> None:
        if closure is None:
            raise CurvebenchError(_ADVICE)
        self.parameters = list(parameters)
        self._closure = closure

    def at(self, needs: Collection[Query]) -> ClosurePoint:
        """The point at the live parameters: one evaluation of the closure.

        Raises:
            CurvebenchError: the loss carries no graph, or Gauss-Newton products are wanted and there are no outputs.
        """
        with torch.enable_grad(), math_attention() if SECOND_DERIVATIVES & set(needs) else nullcontext():
            loss, outputs = _split(self._closure())
        if not loss.requires_grad:
            raise CurvebenchError(f"the closure's loss does not depend on the parameters, or is detached: {_ADVICE}")
        if Query.GGNVP in needs and outputs is None:
            raise CurvebenchError(
                "Gauss-Newton products need the model's outputs: let the closure return (loss, outputs), "
                "the loss computed from the outputs"
            )
        return ClosurePoint(self.parameters, loss, outputs, Query.HVP in needs)

    @torch.no_grad()
    def loss(self) -> Tensor:
        """The closure's loss ``[]`` at the live parameters, without a graph."""
        return _split(self._closure())[0]

    def tally(self, *, factors: int = 0, inverses: int = 0, sent: int = 0) -> None:
        """Nothing is counted here."""


class ClosurePoint:
    """Loss, gradient and products at one evaluation of a closure.

    Args:
        parameters: the leaves.
        loss: with its graph.
        outputs: what the loss was computed from, or None.
        second: whether the gradient needs a graph of its own.
    """

    def __init__(self, parameters: Sequence[Tensor], loss: Tensor, outputs: Tensor | None, second: bool) -> None:
        self._parameters = parameters
        self._loss = loss
        self._outputs = outputs
        self._second = second
        self._gradient: tuple[Tensor, ...] | None = None

    def loss(self) -> Tensor:
        """The loss ``[]``, detached."""
        return self._loss.detach()

    def gradient(self) -> list[Tensor]:
        """``grad f``, zeros for parameters that the loss does not depend on.

        Raises:
            CurvebenchError: the closure called ``backward`` and so destroyed the graph.
        """
        if self._gradient is None:
            try:
                self._gradient = differentiate([self._loss], self._parameters, create_graph=self._second)
            except RuntimeError as error:
                if "backward through the graph a second time" in str(error):
                    raise CurvebenchError(_ADVICE) from error
                raise
        return list(self._gradient)

    def hvp(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """``H v`` over all parameters jointly."""
        with explained():
            return hessian_vector_product(self.gradient(), self._parameters, vector)

    def hvps(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """``H v_j`` for k vectors ``[k, *shape]``."""
        with explained():
            return hessian_products(self.gradient(), self._parameters, vectors)

    def ggnvp(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """``J' H_out J v``; a term of the loss that does not go through the outputs has no part in it."""
        return [g[0] for g in self.ggnvps([v[None] for v in vector])]

    def ggnvps(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """``J' H_out J v_j`` for k vectors ``[k, *shape]``."""
        assert self._outputs is not None
        with explained():
            return gauss_newton_products(self._outputs, self._parameters, vectors, loss=self._loss)


def _split(value: Any) -> tuple[Tensor, Tensor | None]:
    loss, outputs = value if isinstance(value, tuple) else (value, None)
    if not isinstance(loss, Tensor):
        raise CurvebenchError(f"the closure returned {type(loss).__name__}: {_ADVICE}")
    return loss, outputs
