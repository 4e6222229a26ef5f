"""Small networks on real digits, whose Hessian is affordable in full: a tanh network on pooled images, a convolution.

``f(theta) = mean_i -log softmax(o(x_i))_{y_i}`` on a fixed random choice of ``n`` training digits. ``pooled``: images
averaged over 2 x 2 pixels, ``[batch, 16]``, a tanh network 16-``hidden``-10. ``convolution``: images
``[batch, 1, 8, 8]``, 3 x 3 with stride 2 to ``channels`` channels, tanh, linear to 10. Pixels in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.data.digits import load_digits
from curvebench.tasks.autoencoder import widths
from curvebench.tasks.mlp import initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator, kaiming_normal
from curvebench.types import Parameters

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

NETWORKS = ("pooled", "convolution")


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``network``, ``n`` training images, and ``hidden`` (e.g. ``"10"``) or ``channels``.

    Raises:
        ValueError: another network, or ``n`` outside the number of training images.
    """
    options: Mapping[str, Any] = scale.options
    network, n = str(options["network"]), int(options["n"])
    digits = load_digits()
    if network not in NETWORKS:
        raise ValueError(f"small digits: network = {network!r}: must be one of {', '.join(map(repr, NETWORKS))}")
    if not 1 <= n <= len(digits.train):
        raise ValueError(f"small digits: n = {n}: must lie in [1, {len(digits.train)}], the training images")
    images = digits.images.reshape(-1, 8, 8) / 16.0
    inputs = images[:, None] if network == "convolution" else pooled(images)
    chosen = generator("small-digits", "instance", "rows").permutation(digits.train)[:n]

    def split(rows: npt.NDArray[np.int64]) -> Split:
        return Split(inputs[rows], digits.labels[rows])

    rng = generator(card.name, seed_block, "init")
    if network == "pooled":
        sizes = [16, *widths(str(options["hidden"])), 10]
        start: Parameters = initial(rng, sizes)
        twins: Any = (lambda: torch_mlp(sizes, "tanh"), jax_mlp(len(sizes) - 1, "tanh"))
    else:
        channels = int(options["channels"])
        start = {"0.weight": kaiming_normal(rng, (channels, 1, 3, 3), 1.0), "0.bias": np.zeros(channels),
                 "3.weight": kaiming_normal(rng, (10, 16 * channels), 1.0), "3.bias": np.zeros(10)}  # fmt: skip
        twins = (lambda: torch_convolution(channels), jax_convolution)
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=start,
        train=split(np.sort(chosen)),
        validation=split(digits.validation),
        test=split(digits.test),
        criterion="cross-entropy",
        metric="token-loss",
        torch_module=twins[0],
        jax_apply=twins[1],
        batch=batch_size(scale),
    )


def pooled(images: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over 2 x 2 pixels of ``[n, 8, 8]``: ``[n, 16]``."""
    means: npt.NDArray[np.float64] = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return means


def torch_convolution(channels: int) -> nn.Module:
    """The torch twin of the convolutional network."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(),
                         nn.Linear(16 * channels, 10))  # fmt: skip


def jax_convolution(train: bool) -> Apply:
    """The jax twin of the convolutional network."""
    import jax.numpy as jnp

    from curvebench.tasks.layers_jax import conv2d, linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        hidden = jnp.tanh(conv2d(params, "0", inputs, tap, stride=2, padding=1))
        return linear(params, "3", hidden.reshape(len(hidden), -1), tap), {}

    return apply
