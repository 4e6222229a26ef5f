"""Fully connected networks: ``linear, activation, ..., linear`` with torch's names ``0.weight, 0.bias, 2.weight``.

Shapes: inputs ``[batch, sizes[0]]``, outputs ``[batch, sizes[-1]]``; weights ``[out, in]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from curvebench.tasks.problem import kaiming_normal

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

Activation = Literal["tanh", "relu", "identity"]
ACTIVATIONS: tuple[Activation, ...] = ("tanh", "relu", "identity")


def initial(
    rng: np.random.Generator, sizes: Sequence[int], *, gain: float = 1.0, bias: bool = True
) -> dict[str, npt.NDArray[np.float64]]:
    """Weights from N(0, gain / fan_in), biases zero.

    Raises:
        ValueError: fewer than two sizes, or one below 1.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes = {list(sizes)}: must be at least two positive integers")
    found: dict[str, npt.NDArray[np.float64]] = {}
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        found[f"{2 * layer}.weight"] = kaiming_normal(rng, (outputs, inputs), gain)
        if bias:
            found[f"{2 * layer}.bias"] = np.zeros(outputs)
    return found


def check_activation(activation: str) -> Activation:
    """The activation of that name.

    Raises:
        ValueError: there is none.
    """
    for known in ACTIVATIONS:
        if activation == known:
            return known
    raise ValueError(f"activation = {activation!r}: must be one of {', '.join(ACTIVATIONS)}")


def torch_mlp(sizes: Sequence[int], activation: Activation, *, bias: bool = True) -> nn.Sequential:
    """The torch twin."""
    from torch import nn

    between = {"tanh": nn.Tanh, "relu": nn.ReLU, "identity": nn.Identity}[activation]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=bias), between()]
    return nn.Sequential(*layers[:-1])


def jax_mlp(depth: int, activation: Activation) -> Callable[[bool], Apply]:
    """The jax twin of ``depth`` linear layers."""

    def build(train: bool) -> Apply:
        import jax.numpy as jnp
        from jax.nn import relu

        from curvebench.tasks.layers_jax import linear

        between: Callable[[Any], Any] = {"tanh": jnp.tanh, "relu": relu, "identity": lambda x: x}[activation]

        def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
            hidden = inputs
            for layer in range(depth):
                hidden = linear(params, str(2 * layer), hidden, tap)
                hidden = hidden if layer == depth - 1 else between(hidden)
            return hidden, {}

        return apply

    return build
