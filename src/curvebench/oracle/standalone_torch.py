"""The oracle of an optimiser that is used alone, in somebody's own training loop: nothing is counted.

It answers the same questions as :class:`~curvebench.oracle.torch.TorchOracle` from what such a loop leaves behind:
``p.grad`` (with its graph after ``loss.backward(create_graph=True)``), or a closure that returns the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, MissingGraphError
from curvebench.kernels.products_torch import hessian_vector_product
from curvebench.oracle import ledger as L
from curvebench.oracle.double_backward_torch import explained, math_attention
from curvebench.oracle.streams_torch import NativeStream, Stream
from curvebench.spec import Query, seed

_GRAPH_ADVICE = (
    "curvature needs a gradient with its graph: call loss.backward(create_graph=True) before step(), "
    "or pass step() a closure that returns the loss"
)


class AutogradOracle:
    """One step's oracle.

    Args:
        parameters: all parameters of the optimiser; those without a gradient are left out.
        closure: re-evaluates the model and returns the loss; it may call ``backward``.
        generator: source of probes, advanced by this step; None only if none are drawn.
    """

    def __init__(
        self, parameters: Sequence[Tensor], closure: Callable[[], Any] | None, generator: torch.Generator | None
    ) -> None:
        self._everything = list(parameters)
        self._closure = closure
        self._generator = generator
        self._seed: int | None = None
        self._streams: dict[str, torch.Generator] = {}
        self.parameters: list[Tensor] = self._everything

    def at(self, needs: Collection[Query]) -> StandalonePoint:
        """The point at the live parameters; ``needs`` says whether a graph is wanted.

        Raises:
            MissingGraphError: a graph is wanted, the gradients have none, and there is no closure to build it.
            CurvebenchError: there is no gradient at all, or a sparse one.
        """
        loss: Tensor | None = None
        gradients = [p.grad for p in self._everything]
        if self._closure is not None:
            before = [(id(g), None if g is None else g._version) for g in gradients]
            with torch.enable_grad(), math_attention() if Query.HVP in needs else nullcontext():
                loss = self._closure()
            gradients = [p.grad for p in self._everything]
            if before == [(id(g), None if g is None else g._version) for g in gradients]:
                gradients = [None] * len(gradients)  # the closure did not call backward: what is there is stale
        second = Query.HVP in needs
        graphless = second and not any(g is not None and g.requires_grad for g in gradients)
        if isinstance(loss, Tensor) and loss.requires_grad and (graphless or all(g is None for g in gradients)):
            gradients = self._differentiate(loss, second)
        elif graphless and any(p.requires_grad for p in self._everything):
            raise MissingGraphError(_GRAPH_ADVICE)
        kept = [(p, g) for p, g in zip(self._everything, gradients, strict=True) if g is not None]
        if not kept:
            raise CurvebenchError("no parameter has a gradient: call loss.backward() before step(), or pass a closure")
        self.parameters = [p for p, _ in kept]
        if any(g.is_sparse for _, g in kept):
            raise CurvebenchError("a gradient is sparse: curvature methods need dense gradients (sparse=False)")
        return StandalonePoint(self.parameters, [g for _, g in kept], loss)

    def loss(self) -> Tensor:
        """The closure's value at the live parameters, without a graph.

        Raises:
            CurvebenchError: there is no closure.
        """
        if self._closure is None:
            raise CurvebenchError("a zeroth-order method needs a closure that returns the loss: step(closure)")
        with torch.no_grad():
            value = self._closure()
        return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)  # as a Python float is

    def tally(self, *, factors: int = 0, inverses: int = 0, sent: int = 0) -> None:
        """Nothing is counted here."""

    def stream(self, name: str) -> Stream:
        """Open (rewind) a stream of this step; all streams of a step derive from one draw of the generator.

        Raises:
            CurvebenchError: the optimiser has no generator.
        """
        if self._generator is None:
            raise CurvebenchError("probes are drawn but the optimiser has no generator")
        if self._seed is None:
            self._seed = int(torch.randint(2**31 - 1, (), generator=self._generator, device=self._generator.device))
        if name not in self._streams:
            self._streams[name] = torch.Generator(self._generator.device)
        self._streams[name].manual_seed(seed("stream", self._seed, name) & 0xFFFFFFFF)
        return NativeStream(self._streams[name], self._everything[0], [0] * len(L.COLUMNS))

    def _differentiate(self, loss: Tensor, create_graph: bool) -> list[Tensor | None]:
        live = [p for p in self._everything if p.requires_grad]  # a frozen parameter has no gradient
        try:
            found = dict(
                zip(live, torch.autograd.grad(loss, live, create_graph=create_graph, allow_unused=True), strict=True)
            )
            return [found.get(p) for p in self._everything]
        except RuntimeError as error:
            if "backward through the graph a second time" in str(error):
                raise MissingGraphError(_GRAPH_ADVICE) from error
            raise


class StandalonePoint:
    """Gradient, loss and Hessian-vector products at the live parameters."""

    def __init__(self, parameters: list[Tensor], gradients: list[Tensor], loss: Tensor | None) -> None:
        self._parameters = parameters
        self._gradients = gradients
        self._loss = loss

    def loss(self) -> Tensor | None:
        """The closure's loss, detached; None without a closure."""
        return self._loss.detach() if isinstance(self._loss, Tensor) else self._loss

    def gradient(self) -> list[Tensor]:
        """The gradients, with their graph if there is one."""
        return self._gradients

    def hvp(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """``H v`` over all parameters jointly."""
        with torch.enable_grad(), explained():
            return hessian_vector_product(self._gradients, self._parameters, vector)
