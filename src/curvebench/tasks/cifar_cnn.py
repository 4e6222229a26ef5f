"""DeepZero's adjustable CNN: ``depth`` times (3x3 convolution, BatchNorm, ReLU, 2x2 max pooling), mean, linear.

With 18 channels depth 1, 2, 3, 4, 5 has 730, 3,700, 6,670, 9,640, 12,610 parameters, the axis of the paper's comparison
of coordinate-wise and random zeroth-order estimates (Chen et al., ICLR 2024, arXiv:2310.02025, figure 2).
Pooling takes maxima of pairs, so that equal pixels (a black border has many) share the gradient evenly in both
frameworks; torch's max_pool2d gives all of it to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.cifar_images import CLASSES, assemble
from curvebench.tasks.problem import Problem, generator, kaiming_normal
from curvebench.types import Parameters

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

DEEPEST = 5
"""32 pixels can be halved so often."""


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``depth`` (1 to 5), ``channels``, and those of :mod:`curvebench.tasks.cifar_images`."""
    options: Mapping[str, Any] = scale.options
    depth, channels, classes = int(options["depth"]), int(options["channels"]), CLASSES[str(card.dataset)]
    if not 1 <= depth <= DEEPEST:
        raise ValueError(f"{card.name}: depth = {depth}: must lie in [1, {DEEPEST}]")
    return assemble(
        card,
        scale,
        seed_block,
        initial(generator(card.name, seed_block, "init"), depth, channels, classes),
        lambda: torch_cnn(depth, channels, classes),
        lambda train: jax_cnn(depth, train),
    )


def initial(rng: np.random.Generator, depth: int, channels: int, classes: int) -> Parameters:
    """He-normal convolutions, zero biases, unit norms, a linear head with N(0, 1/fan_in) weights."""
    parameters: Parameters = {}
    for index in range(depth):
        parameters[f"{index}.conv.weight"] = kaiming_normal(rng, (channels, 3 if index == 0 else channels, 3, 3))
        parameters[f"{index}.conv.bias"] = np.zeros(channels)
        parameters[f"{index}.norm.weight"] = np.ones(channels)
        parameters[f"{index}.norm.bias"] = np.zeros(channels)
    parameters["head.weight"] = kaiming_normal(rng, (classes, channels), gain=1.0)
    parameters["head.bias"] = np.zeros(classes)
    return parameters


def halve(x: Any, maximum: Callable[[Any, Any], Any]) -> Any:
    """2x2 max pooling ``[batch, channels, h, w] -> [batch, channels, h/2, w/2]`` as maxima of pairs.

    XLA's maximum over an axis finds the winner by comparing with a recomputed input, whose rounding may differ.
    """
    rows = maximum(x[:, :, ::2], x[:, :, 1::2])
    return maximum(rows[..., ::2], rows[..., 1::2])


def torch_cnn(depth: int, channels: int, classes: int) -> nn.Module:
    """The torch twin."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    from curvebench.oracle.batchnorm_torch import BatchNorm2d

    class Layer(nn.Module):
        def __init__(self, n_in: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(n_in, channels, 3, padding=1)
            self.norm = BatchNorm2d(channels)

        def forward(self, x: Tensor) -> Any:
            return halve(F.relu(self.norm(self.conv(x))), torch.maximum)

    class Cnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for index in range(depth):
                self.add_module(str(index), Layer(3 if index == 0 else channels))
            self.head = nn.Linear(channels, classes)

        def forward(self, x: Tensor) -> Tensor:
            for index in range(depth):
                x = self.get_submodule(str(index))(x)
            logits: Tensor = self.head(x.mean(dim=(2, 3)))
            return logits

    return Cnn()


def jax_cnn(depth: int, train: bool) -> Apply:
    """The jax twin."""
    import jax.numpy as jnp
    from jax.nn import relu

    from curvebench.tasks.layers_jax import batch_norm, conv2d, linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], x: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        statistics: dict[str, Any] = {}
        for index in range(depth):
            hidden = conv2d(params, f"{index}.conv", x, tap, padding=1)
            hidden = relu(batch_norm(params, buffers, f"{index}.norm", hidden, statistics, train=train))
            x = halve(hidden, jnp.maximum)
        return linear(params, "head", x.mean(axis=(2, 3)), tap), statistics

    return apply
