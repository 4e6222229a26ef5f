"""Layer inputs and output gradients in torch, without backward hooks.

The forward hooks of a :class:`LayerCapture` record inputs and outputs of layers with weights; the output gradients
come from asking ``autograd.grad`` for the outputs beside the parameters, so that one backward gives everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

SUPPORTED = (nn.Linear, nn.Conv2d, nn.Embedding)


class LayerStatistics(NamedTuple):
    """What a layer saw in one forward: a module that is used k times has k entries in each tuple.

    ``inputs[i]``: the module's input ``[batch, ..., n_in]`` (``[batch, c, h, w]`` for convolutions).
    ``output_gradients[i]``: gradient of the mean loss in the module's output, of the output's shape.
    """

    inputs: tuple[Tensor, ...]
    output_gradients: tuple[Tensor, ...]


class FisherStatistics(NamedTuple):
    """What a layer saw, with the vectors that make a Fisher matrix of targets that are not the batch's.

    ``inputs[i]``: as in :class:`LayerStatistics`.
    ``columns[k][i]``: the k-th vector of single terms, pulled back to the module's output of that use.
    ``terms``: the number of terms that the mean loss has.
    """

    inputs: tuple[Tensor, ...]
    columns: tuple[tuple[Tensor, ...], ...]
    terms: int


class Record(NamedTuple):
    """One forward of one layer: module name, input (detached), output (in the graph)."""

    name: str
    input: Tensor
    output: Tensor


class LayerCapture:
    """Records the forwards of a module's layers with weights.

    Args:
        module: all its ``nn.Linear``, ``nn.Conv2d`` and ``nn.Embedding`` submodules are watched.
    """

    def __init__(self, module: nn.Module) -> None:
        self._records: list[Record] | None = None
        for name, layer in module.named_modules():
            if isinstance(layer, SUPPORTED):
                layer.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def record(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._records is not None:
                self._records.append(Record(name, inputs[0].detach(), output))

        return record

    @contextmanager
    def recording(self) -> Iterator[list[Record]]:
        """Record the layers' forwards inside the context, in order of use."""
        records: list[Record] = []
        self._records = records
        try:
            yield records
        finally:
            self._records = None


def statistics(records: Sequence[Record], gradients: Sequence[Tensor]) -> dict[str, LayerStatistics]:
    """Join the records with the gradients of their outputs; keys are module names."""
    joined: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    for record, gradient in zip(records, gradients, strict=True):
        entry = joined.setdefault(record.name, ([], []))
        entry[0].append(record.input)
        entry[1].append(gradient.detach())
    return {name: LayerStatistics(tuple(a), tuple(g)) for name, (a, g) in joined.items()}


def fisher_statistics(
    records: Sequence[Record], columns: Sequence[Sequence[Tensor]], terms: int
) -> dict[str, FisherStatistics]:
    """Join the records with the columns pulled back to their outputs; keys are module names."""
    pulled = [statistics(records, column) for column in columns]
    return {
        name: FisherStatistics(first.inputs, tuple(column[name].output_gradients for column in pulled), terms)
        for name, first in pulled[0].items()
    }
