"""Layer inputs and output gradients in jax: a tap after every layer with weights, and probes of zeros in its outputs.

Adding a zero probe to each output turns "gradient in the layer's output" into an ordinary gradient, so that one forward
and one reverse pass give everything; XLA takes the additions out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from curvebench.kernels.geometry import Geometry

Uses = dict[tuple[str, int], Array]
"""By layer name and number of the use."""


class LayerStatistics(NamedTuple):
    """As in torch: ``inputs[i]`` and ``output_gradients[i]`` of the i-th use of a layer."""

    inputs: tuple[Array, ...]
    output_gradients: tuple[Array, ...]


class FisherStatistics(NamedTuple):
    """What a layer saw, with the vectors that make a Fisher matrix of targets that are not the batch's.

    ``inputs[i]``: as in :class:`LayerStatistics`.
    ``columns[i]``: the K vectors of single terms, pulled back to the layer's output of that use, ``[K, *output]``.
    ``terms``: the number of terms that the mean loss has, ``[]``; NaN if the criterion is no mean of its likelihood's.
    """

    inputs: tuple[Array, ...]
    columns: tuple[Array, ...]
    terms: Array


class Tap:
    """Watches the layers of a model: models call ``y = tap(name, x, y)`` after every layer with weights."""

    def __init__(self, probes: Mapping[tuple[str, int], Array] | None = None) -> None:
        self.inputs: Uses = {}
        self.outputs: Uses = {}
        self.geometries: dict[str, Geometry | None] = {}
        self._probes = probes
        self._uses: dict[str, int] = {}

    def __call__(self, name: str, inputs: Array, outputs: Array, geometry: Geometry | None = None) -> Array:
        """Record one use of layer ``name``, a convolution's with its geometry; return its outputs (plus the probe)."""
        key = (name, self._uses.get(name, 0))
        self._uses[name] = key[1] + 1
        self.inputs[key] = inputs
        self.outputs[key] = outputs
        self.geometries[name] = geometry
        return outputs if self._probes is None else outputs + self._probes[key]


def probes(run: Callable[[Any, Tap], Any], params: Any) -> Uses:
    """Zeros shaped like the outputs of every layer that ``run(params, tap)`` uses; nothing is computed."""

    def outputs(p: Any) -> Uses:
        tap = Tap()
        run(p, tap)
        return tap.outputs

    return {key: jnp.zeros(s.shape, s.dtype) for key, s in jax.eval_shape(outputs, params).items()}


def statistics(inputs: Uses, gradients: Uses) -> dict[str, LayerStatistics]:
    """Join the inputs and the output gradients of all uses; keys are layer names."""
    return {
        name: LayerStatistics(tuple(inputs[k] for k in keys), tuple(gradients[k] for k in keys))
        for name, keys in _by_name(gradients).items()
    }


def fisher_statistics(inputs: Uses, columns: Uses, terms: Array) -> dict[str, FisherStatistics]:
    """Join the inputs with the columns pulled back to the outputs; keys are layer names."""
    return {
        name: FisherStatistics(tuple(inputs[k] for k in keys), tuple(columns[k] for k in keys), terms)
        for name, keys in _by_name(columns).items()
    }


def _by_name(uses: Uses) -> dict[str, list[tuple[str, int]]]:
    names = dict.fromkeys(name for name, _ in uses)
    return {name: sorted(key for key in uses if key[0] == name) for name in names}
