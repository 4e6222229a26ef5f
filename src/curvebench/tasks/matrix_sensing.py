"""Matrix sensing: recover a low-rank matrix from Gaussian measurements, exactly or over-parameterised.

``M = V diag(1, ..., 1/2) V'`` of rank r, ``y_i = <A_i, M>`` with (symmetrised) Gaussian ``A_i`` of variance about 1/m.
Symmetric: ``f(X) = sum_i (<A_i, X X'> - y_i)^2 / 4``; asymmetric: ``f(F, G) = sum_i (<A_i, F G'> - y_i)^2 / 2``.
``f* = 0`` at any ``X X' = M``. With more columns than the rank, k > r, the Hessian is singular at the minima and
gradient descent on the symmetric form slows down from a linear rate to 1/T^2 in ``||X X' - M||^2``.
Shapes: ``A [m, n, n]``, ``X, F, G [n, k]``; the inputs are ``sqrt(m/2) A_i`` (``sqrt(m) A_i``), so that the criterion's
mean over measurements is the sum above.
Reference: Xiong, Ding and Du, "How Over-Parameterization Slows Down Gradient Descent in Matrix Sensing", 2024.
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
    """Options: ``n, r, k, m``, ``symmetric``, ``init`` (standard deviation of X and F), ``imbalance`` (of F over G).

    Raises:
        ValueError: not 1 <= r <= k <= n.
    """
    options: Mapping[str, Any] = scale.options
    n, r, k, m = (int(options[key]) for key in ("n", "r", "k", "m"))
    if not 1 <= r <= k <= n:
        raise ValueError(f"matrix sensing: n = {n}, r = {r}, k = {k}: need 1 <= r <= k <= n")
    symmetric, init = bool(options["symmetric"]), float(options["init"])
    matrices, truth = measurements(n, m, symmetric), low_rank(n, r)
    scaling = np.sqrt(m / 2) if symmetric else np.sqrt(m)
    rng = generator(card.name, seed_block, "init")
    parameters = {"x": init * rng.standard_normal((n, k))}
    if not symmetric:
        left = parameters.pop("x")
        parameters = {"f": left, "g": init / float(options["imbalance"]) * rng.standard_normal((n, k))}

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], a: Any) -> Any:
        product = p["x"] @ p["x"].T if symmetric else p["f"] @ p["g"].T
        return a.reshape(len(a), -1) @ product.reshape(-1)

    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        train=Split(scaling * matrices, scaling * np.einsum("mij,ij->m", matrices, truth)),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, parameters),
        jax_apply=jax_expression(outputs),
        batch=batch_size(scale),
        optimum=0.0,
    )


def measurements(n: int, m: int, symmetric: bool) -> Array:
    """``A [m, n, n]``: standard normal matrices over sqrt(m); symmetrised (which hides part of ``F G'``) or not."""
    a = generator("matrix-sensing", "instance", f"measurements/{n}/{m}").standard_normal((m, n, n))
    found: Array = ((a + a.transpose(0, 2, 1)) / 2 if symmetric else a) / np.sqrt(m)
    return found


def low_rank(n: int, r: int) -> Array:
    """``M [n, n]`` with eigenvalues from 1 to 1/2, the rest zero."""
    v = np.linalg.qr(generator("matrix-sensing", "instance", f"truth/{n}/{r}").standard_normal((n, r)))[0]
    truth: Array = (v * np.linspace(1.0, 0.5, r)) @ v.T
    return truth


def recovery(parameters: Mapping[str, Array], truth: Array) -> float:
    """``||X X' - M||_F^2``, or of ``F G'``."""
    product = parameters["x"] @ parameters["x"].T if "x" in parameters else parameters["f"] @ parameters["g"].T
    return float(np.sum((product - truth) ** 2))
