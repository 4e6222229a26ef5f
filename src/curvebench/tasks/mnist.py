"""MNIST by fully connected networks: classes from pixels, and the deep autoencoder of the K-FAC literature.

``kind = "classes"``: cross-entropy of a ReLU network; the metric is accuracy on the last 5,000 training images.
``kind = "pixels"``: ``f(theta) = mean_i sum_j log(1 + exp(o_ij)) - x_ij o_ij``, the cross-entropy of Bernoulli pixels
with intensities in [0, 1], tanh units; the gap is measured from the pixels' own entropy, which no network falls below.
Shapes: images ``[batch, 784]`` in [0, 1], float32 as stored; outputs ``[batch, 10]`` or ``[batch, 784]``.
Reference: Hinton and Salakhutdinov 2006; Martens and Grosse 2015 (784-1000-500-250-30 and its mirror).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench import cards, data
from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.autoencoder import entropy, widths
from curvebench.tasks.mlp import initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``kind``, ``hidden`` (of the network, or of the encoder, which the decoder mirrors), ``train`` (images).

    Raises:
        ValueError: an unknown kind, or more training images than there are.
        DataError: the files are not here, or are not the official ones.
    """
    options: Mapping[str, Any] = scale.options
    kind, hidden, count = str(options["kind"]), widths(str(options["hidden"])), int(options["train"])
    if kind not in ("classes", "pixels"):
        raise ValueError(f"mnist: kind = {kind!r}: must be 'classes' or 'pixels'")
    found = data.load("mnist")
    most = len(found.train_labels) - cards.dataset("mnist").splits["validation"]
    if not 1 <= count <= most:
        raise ValueError(f"mnist: train = {count}: must lie in [1, {most}]")
    images = found.train_images[:count], found.train_images[most:], found.test_images
    train, validation, test = (_pixels(part) for part in images)
    rng = generator(card.name, seed_block, "init")
    if kind == "pixels":
        sizes = [train.shape[1], *hidden, *reversed(hidden[:-1]), train.shape[1]]
        return Problem(
            name=card.name,
            seed_block=seed_block,
            parameters=initial(rng, sizes),
            train=Split(train, train),
            criterion="bernoulli",
            metric="gap",
            torch_module=lambda: torch_mlp(sizes, "tanh"),
            jax_apply=jax_mlp(len(sizes) - 1, "tanh"),
            batch=batch_size(scale),
            optimum=entropy(train.astype(np.float64)),
        )
    sizes = [train.shape[1], *hidden, 10]
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(rng, sizes, gain=2.0),
        train=Split(train, found.train_labels[:count]),
        validation=Split(validation, found.train_labels[most:]),
        test=Split(test, found.test_labels),
        train_probe=min(count, 5000),
        criterion="cross-entropy",
        metric="accuracy",
        torch_module=lambda: torch_mlp(sizes, "relu"),
        jax_apply=jax_mlp(len(sizes) - 1, "relu"),
        batch=batch_size(scale),
    )


def _pixels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """``[n, 784]`` in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
