"""A small convolutional network on scikit-learn's handwritten digits (real data, embedded in that package).

conv 3x3 (1 -> 16), ReLU, conv 3x3 stride 2 (16 -> 32), ReLU, linear (512 -> 10): 9,930 parameters.
Shapes: images ``[batch, 1, 8, 8]`` scaled to [0, 1], logits ``[batch, 10]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.data.digits import load_digits
from curvebench.tasks.problem import Problem, Split, batch_size, generator, kaiming_normal

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """No options."""
    digits = load_digits()

    def split(rows: npt.NDArray[np.int64]) -> Split:
        return Split(digits.images[rows].reshape(-1, 1, 8, 8) / 16.0, digits.labels[rows])

    rng = generator(card.name, seed_block, "init")
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={
            "0.weight": kaiming_normal(rng, (16, 1, 3, 3)),
            "0.bias": np.zeros(16),
            "2.weight": kaiming_normal(rng, (32, 16, 3, 3)),
            "2.bias": np.zeros(32),
            "5.weight": kaiming_normal(rng, (10, 512), gain=1.0),
            "5.bias": np.zeros(10),
        },
        train=split(digits.train),
        validation=split(digits.validation),
        test=split(digits.test),
        criterion="cross-entropy",
        metric="accuracy",
        torch_module=torch_cnn,
        jax_apply=jax_cnn,
        batch=batch_size(scale),
    )


def torch_cnn() -> nn.Module:
    """The torch twin."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def jax_cnn(train: bool) -> Apply:
    """The jax twin."""
    from jax.nn import relu

    from curvebench.tasks.layers_jax import conv2d, linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        hidden = relu(conv2d(params, "0", inputs, tap, padding=1))
        hidden = relu(conv2d(params, "2", hidden, tap, stride=2, padding=1))
        return linear(params, "5", hidden.reshape(len(hidden), -1), tap), {}

    return apply
