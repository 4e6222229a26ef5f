"""A diagonal linear network: sparse regression through squared weights, with many minima of different sharpness.

``f(u, v) = mean_i (x_i' (u^2 - v^2) - y_i)^2 / 2`` with more weights than samples: every interpolating pair is a
minimum with ``f* = 0``. There the trace of the Hessian is ``4 mean_i sum_j x_ij^2 (u_j^2 + v_j^2)``. Dynamical
stability selects: gradient descent can end only where the largest eigenvalue is at most 2/lr, SGD with single samples
only where the trace is (Wu and Su, "The Implicit Regularization of Dynamical Stability in Stochastic Gradient Descent",
2023). Shapes: ``x [n, d]``, ``u, v [d]``, outputs ``[batch]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n, d``, ``sparsity`` (nonzero entries of the truth), ``init`` (standard deviation of u and v).

    Raises:
        ValueError: not n < d, or the truth has more nonzero entries than d.
    """
    options: Mapping[str, Any] = scale.options
    n, d, sparsity = (int(options[key]) for key in ("n", "d", "sparsity"))
    if not (1 <= n < d and 1 <= sparsity <= d):
        raise ValueError(f"diagonal network: n = {n}, d = {d}, sparsity = {sparsity}: need n < d, 1 <= sparsity <= d")
    rng = generator("diagonal-network", "instance", f"{n}/{d}/{sparsity}")
    x = rng.standard_normal((n, d))
    truth = np.concatenate([np.ones(sparsity), np.zeros(d - sparsity)])
    start = float(options["init"]) * np.abs(generator(card.name, seed_block, "init").standard_normal((2, d)))
    parameters = {"u": start[0], "v": start[1]}

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        return inputs @ (p["u"] ** 2 - p["v"] ** 2)

    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        train=Split(x, x @ truth),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, parameters),
        jax_apply=jax_expression(outputs),
        batch=batch_size(scale),
        optimum=0.0,
    )


def sharpness(x: Array, y: Array, parameters: Mapping[str, Array]) -> tuple[float, float]:
    """Trace and largest eigenvalue of the Hessian of ``f``, in closed form."""
    u, v = parameters["u"], parameters["v"]
    residual = x @ (u**2 - v**2) - y
    jacobian = np.concatenate([2 * x * u, -2 * x * v], axis=1)
    slopes = 2 * (x * residual[:, None]).mean(axis=0)
    hessian = jacobian.T @ jacobian / len(y) + np.diag(np.concatenate([slopes, -slopes]))
    return float(np.trace(hessian)), float(np.linalg.eigvalsh(hessian)[-1])
