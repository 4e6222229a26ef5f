"""Modular addition: a network that first remembers its training pairs and much later finds the rule.

``f(theta) = mean_i -log softmax(o(a_i, b_i))_{(a_i + b_i) mod p}`` over a random share of all ``p^2`` pairs, full
batch, ReLU network on two one-hot vectors. Accuracy on the pairs that were left out is the metric; they are cut into
validation and test. In float32 the cross-entropy of a sample whose margin is large is exactly 0 and so is its gradient
("softmax collapse"): :func:`collapsed` counts such samples. Weight decay is left to the method.
Shapes: inputs ``[batch, 2 p]``, logits ``[batch, p]``.
Reference: Prieto et al. 2025, "Grokking at the Edge of Numerical Stability" (p = 113, 40 % of the pairs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.autoencoder import widths
from curvebench.tasks.mlp import initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``p``, ``share`` (of the pairs that are trained on), ``hidden`` (e.g. ``"200-200"``).

    Raises:
        ValueError: p < 2, or a share that leaves fewer than one pair to train on or two to look at.
    """
    options: Mapping[str, Any] = scale.options
    p = int(options["p"])
    train, validation, test = pairs(p, float(options["share"]))
    sizes = [2 * p, *widths(str(options["hidden"])), p]
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), sizes, gain=2.0),
        train=train,
        validation=validation,
        test=test,
        criterion="cross-entropy",
        metric="accuracy",
        torch_module=lambda: torch_mlp(sizes, "relu"),
        jax_apply=jax_mlp(len(sizes) - 1, "relu"),
        batch=batch_size(scale),
    )


def pairs(p: int, share: float) -> tuple[Split, Split, Split]:
    """Training, validation and test pairs, disjoint and together all ``p^2``; the same for every seed block.

    Raises:
        ValueError: as :func:`problem`.
    """
    count = round(share * p * p)
    if p < 2 or not 1 <= count <= p * p - 2:
        raise ValueError(f"grokking: p = {p}, share = {share}: need p >= 2, 1 pair to train on and 2 left out")
    order = generator("grokking", "instance", str(p)).permutation(p * p)
    half = count + (p * p - count) // 2
    first, second = np.divmod(np.arange(p * p), p)
    hot = np.eye(p)
    inputs, labels = np.concatenate([hot[first], hot[second]], axis=1), (first + second) % p
    a, b, c = (Split(inputs[rows], labels[rows]) for rows in np.split(order, [count, half]))
    return a, b, c


def collapsed(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> int:
    """Samples whose cross-entropy is exactly 0 in the precision of ``logits [n, p]``: nothing is learned from them."""
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return int(np.sum(total - logits[np.arange(len(labels)), labels] == 0))
