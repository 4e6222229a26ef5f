"""Bilevel ridge regression: choose the regulariser of one half of the data by the error on the other.

Inner: ``w(l) = argmin_w ||A w - b||^2 / (2 n) + exp(l) ||w||^2 / 2``; outer: ``f(l) = mean ((C w(l) - d)^2) / 2`` over
one variable, the logarithm of the regulariser. The inner problem is solved in closed form inside the model, so that
derivatives of ``f`` are exact hypergradients. Diabetes with all products of its ten columns, 221 + 221 rows. Shapes:
``A, C [221, 65]``, ``l [1]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.data.scikit_tables import load_diabetes
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``start`` (of the logarithm), ``init`` (standard deviation of its seeded shift)."""
    options: Mapping[str, Any] = scale.options
    (a, b), outer = halves()
    constants = {"gram": a.T @ a / len(a), "moment": a.T @ b / len(a), "identity": np.eye(a.shape[1])}
    shift = generator(card.name, seed_block, "init").standard_normal(1)
    start = {"log_regulariser": float(options["start"]) + float(options["init"]) * shift}

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        return inputs @ xp.linalg.solve(c["gram"] + xp.exp(p["log_regulariser"]) * c["identity"], c["moment"])

    assert card.optimum is not None
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=start,
        train=outer,
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, start, constants),
        jax_apply=jax_expression(outputs, constants),
        batch=batch_size(scale),
        optimum=card.optimum.value,
    )


def halves() -> tuple[Split, Split]:
    """The first and the second 221 patients: standardised columns and products, standardised again; scaled targets."""
    table = load_diabetes()
    x = _standardised(table.features)
    first, second = np.triu_indices(x.shape[1])
    z = _standardised(np.concatenate([x, x[:, first] * x[:, second]], axis=1))
    y = _standardised(table.targets.astype(np.float64)[:, None])[:, 0]
    half = len(y) // 2
    return Split(z[:half], y[:half]), Split(z[half:], y[half:])


def _standardised(x: Array) -> Array:
    scaled: Array = (x - x.mean(axis=0)) / x.std(axis=0)
    return scaled


def value(log_regulariser: float) -> float:
    """``f(l)`` in NumPy."""
    (a, b), (c, d) = halves()
    w = np.linalg.solve(a.T @ a / len(a) + np.exp(log_regulariser) * np.eye(a.shape[1]), a.T @ b / len(a))
    return float(np.mean((c @ w - d) ** 2) / 2)
