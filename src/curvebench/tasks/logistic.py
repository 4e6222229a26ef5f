"""Regularised logistic regression: ``f(w) = mean_i log(1 + exp(-y_i w.x_i)) + l2/2 ||w||^2``.

A constant column is appended, so that the bias is regularised too. Breast cancer's columns are standardised, LIBSVM's
are used as published. The minimiser is found by Newton's method in float64 to a gradient norm of rounding size; ``f*``
on the card is checked against it, and taken from there where the table is so large that Newton's method takes seconds.
Shapes: ``X [n, d]``, labels +-1 ``[n]``, ``w`` is the weight ``[1, d]`` of one linear layer without bias.

With ``coordinates = c > 0`` the variables are ``phi`` with ``w = S phi`` and ``cond(S) = c``: the same function,
minimum and start in other coordinates. The regulariser ``l2/2 ||S phi||^2`` is then no multiple of ``||phi||^2``: the
model puts out ``sqrt(l2) S phi`` beside the logit, so that its curvature stays in the Gauss-Newton matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench import data
from curvebench.cards import TaskCard, TaskScale
from curvebench.data.breast_cancer import load_breast_cancer
from curvebench.data.libsvm import SIGNED
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.least_squares import jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split, batch_size, generator
from curvebench.tasks.tables import with_ones


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``l2``, ``init`` (standard deviation of the initial weights), ``coordinates`` (cond(S); 0: none).

    The card's data set decides the table.
    """
    options: Mapping[str, Any] = scale.options
    x, y = table(str(card.dataset))
    if card.dataset == "breast-cancer":
        optimum = minimise(x, y, float(options["l2"]))[1]
    else:
        assert card.optimum is not None
        optimum = card.optimum.value
    if condition := float(options.get("coordinates", 0.0)):
        return _reparametrised(card, scale, seed_block, x, y, optimum, transformation(x.shape[1], condition))
    start = generator(card.name, seed_block, "init").standard_normal((1, x.shape[1]))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": float(options["init"]) * start},
        train=Split(x, y),
        criterion="logistic",
        metric="gap",
        torch_module=lambda: torch_linear(x.shape[1]),
        jax_apply=jax_linear,
        batch=batch_size(scale),
        l2=float(options["l2"]),
        optimum=optimum,
    )


def table(dataset: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Features ``[n, d]`` with a last column of ones, and labels +-1 of the training part.

    Raises:
        ValueError: the data set has not two classes.
        DataError: its files are not here, or are not the card's.
    """
    if dataset == "breast-cancer":
        raw = load_breast_cancer()
        return standardise(raw.features), raw.labels
    if dataset in SIGNED:
        found = data.load(dataset)
        return with_ones(found.features), found.labels
    raise ValueError(f"logistic: dataset = {dataset!r}: must be 'breast-cancer' or one of {', '.join(sorted(SIGNED))}")


def transformation(d: int, condition: float) -> npt.NDArray[np.float64]:
    """``S [d, d]`` = U diag(logspace(0, -log10(condition), d)) V' with random rotations U and V.

    Raises:
        ValueError: condition < 1.
    """
    if condition < 1:
        raise ValueError(f"logistic: coordinates = {condition}: must be 0 (none) or at least 1")
    rng = generator("logistic", "instance", f"coordinates/{d}")
    u, v = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    return np.ascontiguousarray((u * np.logspace(0, -np.log10(condition), d)) @ v.T)


def _reparametrised(
    card: TaskCard, scale: TaskScale, seed_block: int, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64],
    optimum: float, s: npt.NDArray[np.float64],
) -> Problem:  # fmt: skip
    options: Mapping[str, Any] = scale.options
    l2 = float(options["l2"])
    # the start in w does not depend on S, so that all coordinates start from one point
    start = float(options["init"]) * generator("logistic", seed_block, "init").standard_normal(len(s))
    phi: npt.NDArray[np.float64] = np.linalg.solve(s, start).astype(np.float64)

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        w = c["s"] @ p["phi"]
        penalty = xp.broadcast_to(l2**0.5 * w, inputs.shape)
        return xp.concatenate([(inputs @ w)[:, None], penalty], 1)

    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"phi": phi},
        train=Split(x, y),
        criterion="logistic-ridge",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, {"phi": phi}, {"s": s}),
        jax_apply=jax_expression(outputs, {"s": s}),
        batch=batch_size(scale),
        optimum=optimum,
    )


def standardise(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Zero mean, unit variance per column (constant columns stay 0), and a last column of ones."""
    deviation = x.std(axis=0)
    scaled = (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return with_ones(scaled)


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
