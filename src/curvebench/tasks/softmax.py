"""Multinomial logistic regression: ``f(W) = mean_i -log softmax(W x_i)_{y_i} + l2/2 ||W||^2``, a constant column in X.

The logits are linear in ``W``, so Hessian, generalised Gauss-Newton matrix and Fisher matrix are one:
``mean_i (diag(p_i) - p_i p_i') (x) x_i x_i' + l2 I``. The value on the card is the end of Newton's method in float64;
``f(W) - f* <= ||grad f(W)||^2 / (2 l2)`` by strong convexity certifies it.
Shapes: ``X [n, d]``, labels ``[n]``, ``W [k, d]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.data.digits import load_digits
from curvebench.data.scikit_tables import load_wine
from curvebench.tasks.logistic import standardise
from curvebench.tasks.problem import Problem, Split, batch_size, generator

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``l2``, ``init`` (standard deviation of the initial weights); the card's data set decides the table."""
    options: Mapping[str, Any] = scale.options
    x, y = table(str(card.dataset))
    k, d = int(y.max()) + 1, x.shape[1]
    start = generator(card.name, seed_block, "init").standard_normal((k, d))
    assert card.optimum is not None
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": float(options["init"]) * start},
        train=Split(x, y),
        criterion="cross-entropy",
        metric="gap",
        torch_module=lambda: torch_softmax(d, k),
        jax_apply=jax_softmax,
        batch=batch_size(scale),
        l2=float(options["l2"]),
        optimum=card.optimum.value,
    )


def table(dataset: str) -> tuple[Array, npt.NDArray[np.int64]]:
    """Features with a last column of ones, and classes: digits scaled to [0, 1], wine standardised.

    Raises:
        ValueError: neither ``digits`` nor ``wine``.
    """
    if dataset == "digits":
        digits = load_digits()
        return np.concatenate([digits.images / 16.0, np.ones((len(digits.images), 1))], axis=1), digits.labels
    if dataset == "wine":
        wine = load_wine()
        return standardise(wine.features), wine.targets
    raise ValueError(f"softmax: dataset = {dataset!r}: must be 'digits' or 'wine'")


def minimise(x: Array, y: npt.NDArray[np.int64], l2: float) -> tuple[Array, float, float]:
    """Newton's method with halving, Hessian dense: return ``(W*, f*, ||grad f(W*)||)``."""
    (n, d), k = x.shape, int(y.max()) + 1
    hot = np.eye(k)[y]

    def value(w: Array) -> float:
        logits = x @ w.T
        top = logits.max(axis=1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float(np.mean(total - logits[np.arange(n), y]) + l2 / 2 * np.sum(w * w))

    w, norm = np.zeros((k, d)), np.inf
    for _ in range(30):
        logits = x @ w.T
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        gradient = (p - hot).T @ x / n + l2 * w
        norm = float(np.linalg.norm(gradient))
        if norm < 1e-14:
            break
        direction = np.linalg.solve(fisher(x, p) + l2 * np.eye(k * d), gradient.reshape(-1)).reshape(k, d)
        t = 1.0
        while value(w - t * direction) > value(w) + 1e-15 and t > 1e-8:
            t /= 2
        w = w - t * direction
    return w, value(w), norm


def fisher(x: Array, p: Array) -> Array:
    """``mean_i (diag(p_i) - p_i p_i') (x) x_i x_i'`` ``[k d, k d]``, the Hessian of the mean cross-entropy."""
    (n, d), k = x.shape, p.shape[1]
    blocks = np.empty((k, d, k, d))
    for a in range(k):
        for b in range(a, k):
            weights = p[:, a] * ((a == b) - p[:, b])
            blocks[a, :, b, :] = blocks[b, :, a, :] = (x * weights[:, None]).T @ x / n
    return blocks.reshape(k * d, k * d)


def torch_softmax(d: int, k: int) -> nn.Module:
    """The torch twin: logits ``[batch, k]``."""
    from torch import nn

    return nn.Sequential(nn.Linear(d, k, bias=False))


def jax_softmax(train: bool) -> Apply:
    """The jax twin."""
    from curvebench.tasks.layers_jax import linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        return linear(params, "0", inputs, tap), {}

    return apply
