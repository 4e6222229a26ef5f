"""Layer inputs and output gradients from somebody's own training loop: nothing is counted, and nothing asked of it.

A forward hook on each layer records its input. The gradient of its output comes with the loop's ``loss.backward()``,
through a hook on the output tensor, which an in-place operation after the layer does not disturb; or, for a Fisher
matrix that is not of the true labels, from :meth:`StandaloneLayers.observe`, which leaves ``p.grad`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from curvebench.errors import CurvebenchError
from curvebench.oracle.capture_torch import FisherStatistics, LayerStatistics
from curvebench.spec import Query


class LayerPasses(NamedTuple):
    """What one layer saw since the last step.

    ``inputs[e]``: input of the e-th use, in order; a loop that accumulates gradients makes several passes.
    ``columns[k][e]``: gradient of the output of that use: of the loss (one column), or of the k-th vector pulled back.
    ``passes``: number of forwards of the model; more uses than passes mean that the layer is shared.
    ``terms``: number of terms of the loss that the columns belong to; None for gradients of the loss itself.
    """

    inputs: tuple[Tensor, ...]
    columns: tuple[tuple[Tensor, ...], ...]
    passes: int
    terms: int | None

    @classmethod
    def of(cls, statistics: LayerStatistics | FisherStatistics) -> LayerPasses:
        """The counting oracle's statistics: one pass."""
        if isinstance(statistics, FisherStatistics):
            return cls(statistics.inputs, statistics.columns, 1, statistics.terms)
        return cls(statistics.inputs, (statistics.output_gradients,), 1, None)


class _Use(NamedTuple):
    passing: int
    input: Tensor
    gradients: tuple[Tensor, ...]


class _Pending(NamedTuple):
    name: str
    passing: int
    input: Tensor
    edge: GradientEdge


def _on_gradient(tensor: Tensor, act: Callable[[Tensor], None]) -> None:
    tensor.register_hook(act)  # type: ignore[no-untyped-call]  # torch has no annotation here


class StandaloneLayers:
    """Watches the layers of a model.

    Args:
        model: the whole model; its forwards tell passes apart.
        layers: the layers to watch, by name.
        pulled: gradients come from :meth:`observe` instead of the loop's backward.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], pulled: bool) -> None:
        self.enabled = True
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._pulled = pulled
        self._uses: dict[str, list[_Use]] = {}
        self._pending: list[_Pending] = []
        self._terms = 0
        self._pass = 0
        self._backward_seen = False
        self._handles: list[RemovableHandle] = []
        if not any(layer is model for layer in layers.values()):
            self._handles.append(model.register_forward_pre_hook(self._entered))
        for name, layer in layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name), with_kwargs=True))

    def _entered(self, *_: Any) -> None:
        # Gradients that are all None or zero again were thrown away by model.zero_grad() or base.zero_grad(), which
        # this object does not see: their statistics must not be taken for a micro-batch of this step. In a loop that
        # does accumulate, the first tensor that is looked at answers.
        if self._uses and not self._pulled and not any(p.grad is not None and p.grad.any() for p in self.parameters):
            self.clear()
        self._begin()

    def _begin(self) -> None:
        self._pass += 1
        self._backward_seen = False

    def _hook(self, name: str) -> Callable[..., None]:
        def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            if not (self.enabled and torch.is_grad_enabled() and output.requires_grad):
                return
            if self._backward_seen:  # a loop that calls parts of the model itself: a new forward after a backward
                self._begin()
            x, passing = (args[0] if args else kwargs["input"]).detach(), self._pass
            if self._pulled:
                self._pending.append(_Pending(name, passing, x, get_gradient_edge(output)))
            else:
                _on_gradient(output, lambda gradient: self._arrived(name, passing, x, gradient))

        return record

    def _arrived(self, name: str, passing: int, x: Tensor, gradient: Tensor) -> None:
        self._backward_seen = True
        self._uses.setdefault(name, []).append(_Use(passing, x, (gradient.detach(),)))

    def observe(self, outputs: Tensor, columns: Iterable[Tensor], terms: int) -> None:
        """Pull vectors back from the model's outputs to the outputs of its layers.

        Args:
            outputs: what the model returned, with its graph.
            columns: vectors of the outputs' shape.
            terms: how many terms of the loss the outputs stand for.

        Raises:
            CurvebenchError: no layer was used on the way to ``outputs``.
        """
        if not self.enabled:
            return
        edges = [record.edge for record in self._pending]
        if not edges or not outputs.requires_grad:
            raise CurvebenchError(
                "observe(outputs, ...): no layer was seen on the way to these outputs: call it after the model's "
                "forward (with gradients enabled, outside torch.compile) and before loss.backward()"
            )
        pulled = [
            torch.autograd.grad(outputs, edges, column, retain_graph=True, allow_unused=True) for column in columns
        ]
        for record, *gradients in zip(self._pending, *pulled, strict=True):
            if gradients[0] is not None:
                self._uses.setdefault(record.name, []).append(_Use(record.passing, record.input, tuple(gradients)))
        self._terms += terms
        self._pending.clear()

    def at(self, needs: Collection[Query]) -> StandaloneLayersPoint:
        """The point that the loop's last backward left behind."""
        del needs
        return StandaloneLayersPoint(self.parameters, self._uses, self._terms if self._pulled else None)

    def clear(self) -> None:
        """Forget what was recorded, as ``zero_grad`` forgets gradients."""
        self._uses = {}
        self._pending.clear()
        self._terms = 0
        self._backward_seen = True

    def detach(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()


class StandaloneLayersPoint:
    """Gradients and layer statistics at the live parameters."""

    def __init__(self, parameters: Sequence[Tensor], uses: Mapping[str, Sequence[_Use]], terms: int | None) -> None:
        self._parameters = parameters
        self._uses = uses
        self._terms = terms

    def gradient(self) -> list[Tensor | None]:
        """``p.grad`` of every trained parameter, None where the loss does not depend on it."""
        return [p.grad for p in self._parameters]

    def layer_statistics(self) -> dict[str, LayerPasses]:
        """What every used layer saw, by name."""
        found = {}
        for name, uses in self._uses.items():
            ordered = sorted(uses, key=lambda use: use.passing)  # gradients arrive last layer first
            columns = tuple(zip(*(use.gradients for use in ordered), strict=True))
            passes = len({use.passing for use in ordered})
            found[name] = LayerPasses(tuple(use.input for use in ordered), columns, passes, self._terms)
        return found
