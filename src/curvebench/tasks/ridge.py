"""Ridge regression on real tables: ``f(w) = mean_i (x_i.w - y_i)^2 / 2 + l2/2 ||w||^2``.

Columns and targets are standardised and a constant column is appended. The minimiser is that of an ordinary
least-squares problem with ``d`` more rows, ``sqrt(n l2) I``, solved by QR; ``f(w) - f* <= ||grad f(w)||^2 / (2 l2)`` by
strong convexity certifies it.
Shapes: ``X [n, d]``, ``y [n]``, ``w`` is the weight ``[1, d]`` of one linear layer without bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks import tables
from curvebench.tasks.least_squares import jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``l2``, ``init`` (standard deviation of the initial weights); the card's data set decides the table.

    Raises:
        ValueError: l2 is not positive.
    """
    options: Mapping[str, Any] = scale.options
    if (l2 := float(options["l2"])) <= 0:
        raise ValueError(f"ridge: l2 = {l2}: must be positive")
    (rows,) = tables.scaled((tables.regression(str(card.dataset)).train,))
    x, y = tables.with_ones(rows.inputs), rows.targets
    start = generator(card.name, seed_block, "init").standard_normal((1, x.shape[1]))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": float(options["init"]) * start},
        train=Split(x, y),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_linear(x.shape[1]),
        jax_apply=jax_linear,
        batch=batch_size(scale),
        l2=l2,
        optimum=minimise(x, y, l2)[1],
    )


def minimise(x: Array, y: Array, l2: float) -> tuple[Array, float, float]:
    """Return ``(w*, f*, ||grad f(w*)||)``."""
    n, d = x.shape
    q, r = np.linalg.qr(np.concatenate([x, np.sqrt(n * l2) * np.eye(d)]))
    w: Array = np.linalg.solve(r, q[:n].T @ y)
    residual = x @ w - y
    gradient = x.T @ residual / n + l2 * w
    return w, float(np.mean(residual**2) / 2 + l2 / 2 * w @ w), float(np.linalg.norm(gradient))
