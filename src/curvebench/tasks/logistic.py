"""Regularised logistic regression: ``f(w) = mean_i log(1 + exp(-y_i w.x_i)) + l2/2 ||w||^2``.

Columns are standardised and a constant column is appended, so that the bias is regularised too. The minimiser is found
by Newton's method in float64 to a gradient norm of rounding size; ``f*`` on the card is checked against it.
Shapes: ``X [n, d]``, labels +-1 ``[n]``, ``w`` is the weight ``[1, d]`` of one linear layer without bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.data.breast_cancer import load_breast_cancer
from curvebench.tasks.least_squares import jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split, batch_size, generator


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``l2`` (regularisation), ``init`` (standard deviation of the initial weights)."""
    options: Mapping[str, Any] = scale.options
    raw = load_breast_cancer()
    x = standardise(raw.features)
    l2 = float(options["l2"])
    _, optimum, _ = minimise(x, raw.labels, l2)
    start = generator(card.name, seed_block, "init").standard_normal((1, x.shape[1]))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": float(options["init"]) * start},
        train=Split(x, raw.labels),
        criterion="logistic",
        metric="gap",
        torch_module=lambda: torch_linear(x.shape[1]),
        jax_apply=jax_linear,
        batch=batch_size(scale),
        l2=l2,
        optimum=optimum,
    )


def standardise(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Zero mean, unit variance per column (constant columns stay 0), and a last column of ones."""
    deviation = x.std(axis=0)
    scaled = (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return np.concatenate([scaled, np.ones((len(x), 1))], axis=1)


def minimise(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], l2: float
) -> tuple[npt.NDArray[np.float64], float, float]:
    """Newton's method with halving: return ``(w*, f*, ||grad f(w*)||)``."""

    def value(w: npt.NDArray[np.float64]) -> float:
        return float(np.mean(np.logaddexp(0, -y * (x @ w))) + l2 / 2 * w @ w)

    w = np.zeros(x.shape[1])
    norm = np.inf
    for _ in range(50):
        p = 1 / (1 + np.exp(y * (x @ w)))
        gradient = -x.T @ (y * p) / len(y) + l2 * w
        norm = float(np.linalg.norm(gradient))
        if norm < 1e-15:
            break
        hessian = (x.T * (p * (1 - p))) @ x / len(y) + l2 * np.eye(len(w))
        direction = np.linalg.solve(hessian, gradient)
        t = 1.0
        while value(w - t * direction) > value(w) + 1e-15 and t > 1e-8:
            t /= 2
        w = w - t * direction
    return w, value(w), norm
