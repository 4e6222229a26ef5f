"""Objectives of the paper on gradient-normalised smoothness: convex but flat, degenerate, and curved valleys.

``log-sum-exp``: ``f(x) = log sum_i exp(a_i x - b_i)``; the rows of ``A`` are shifted by their softmax-weighted mean, so
that ``grad f(0) = 0`` and, ``f`` being convex, ``f* = f(0)``. ``quartic``: ``f(x) = ||A x - b||^4 / 4`` with a
solvable system: the Hessian vanishes at the minima. ``rosenbrock``: residuals ``10 (x_2 - x_1^2), 1 - x_1`` and
``chebyshev``: residuals ``(1 - x_1)/2, x_i - 2 x_{i-1}^2 + 1``, both ``f = ||u(x)||^2 / 2``, ``f* = 0``.

Each objective is one term: the inputs are one dummy sample, the outputs ``[1, m]`` are ``A x`` or ``u(x)``.
Reference: "Gradient-Normalized Smoothness for Optimization with Approximate Hessians" and its repository's notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.expression import Expression, jax_expression, torch_expression
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]
FUNCTIONS = ("log-sum-exp", "quartic", "rosenbrock", "chebyshev")


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``function``, ``m`` (terms), ``d``; starts from the paper's point plus seeded noise of size ``init``.

    Raises:
        ValueError: an unknown function.
    """
    options: Mapping[str, Any] = scale.options
    function, m, d = str(options["function"]), int(options["m"]), int(options["d"])
    constants: dict[str, Array] = {}
    targets, optimum, criterion = np.zeros(m), 0.0, "squared-norm"
    if function == "log-sum-exp":
        constants["a"], targets = flat_at_zero(m, d)
        optimum, criterion = float(np.log(np.exp(-targets).sum())), "log-sum-exp"
        start = np.ones(d)
    elif function == "quartic":
        constants["a"], targets = solvable(m, d)
        criterion, start = "quartic-norm", np.ones(d)
    elif function == "rosenbrock":
        m, d, start, targets = 2, 2, np.array([-2.0, 2.0]), np.zeros(2)
    elif function == "chebyshev":
        m, start, targets = d, np.concatenate([[-1.0], np.ones(d - 1)]), np.zeros(d)
    else:
        raise ValueError(f"smoothness: function = {function!r}: must be one of {', '.join(FUNCTIONS)}")
    noise = generator(card.name, seed_block, "init").standard_normal(d)
    parameters = {"x": start + float(options["init"]) * noise}
    expression = _EXPRESSIONS[function]
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        train=Split(np.zeros((1, 1)), targets[None]),
        criterion=criterion,
        metric="gap",
        torch_module=lambda: torch_expression(expression, parameters, constants),
        jax_apply=jax_expression(expression, constants),
        batch=batch_size(scale),
        optimum=optimum,
    )


def flat_at_zero(m: int, d: int) -> tuple[Array, Array]:
    """``A [m, d]`` uniform in [-1, 1] with ``A' softmax(-b) = 0``, and ``b [m]``."""
    rng = generator("log-sum-exp", "instance", f"{m}/{d}")
    a, b = rng.uniform(-1, 1, (m, d)), rng.uniform(-1, 1, m)
    weights = np.exp(-b) / np.exp(-b).sum()
    return a - weights @ a, b


def solvable(m: int, d: int) -> tuple[Array, Array]:
    """``A [m, d]`` with entries N(0, 1/d), and ``b = A z`` for a normal ``z``."""
    rng = generator("quartic", "instance", f"{m}/{d}")
    a = rng.standard_normal((m, d)) / np.sqrt(d)
    return a, a @ rng.standard_normal(d)


def _affine(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
    return (c["a"] @ p["x"])[None] + 0 * inputs


def _rosenbrock(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
    x = p["x"]
    return xp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])[None] + 0 * inputs


def _chebyshev(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
    x = p["x"]
    return xp.concatenate([(1 - x[:1]) / 2, x[1:] - 2 * x[:-1] ** 2 + 1])[None] + 0 * inputs


_EXPRESSIONS: dict[str, Expression] = {
    "log-sum-exp": _affine, "quartic": _affine, "rosenbrock": _rosenbrock, "chebyshev": _chebyshev,
}  # fmt: skip
