"""Extended dynamic mode decomposition: least squares for the matrix that advances observables by one step.

``f(K) = mean_i ||K psi(x_i) - psi(x_i')||^2 / 2`` for ``x1' = mu x1``, ``x2' = lambda (x2 - x1^2)`` (continuous time),
advanced exactly by ``dt``. The observables are the monomials ``x1^i x2^j`` with ``0 < i + 2 j <= degree``: a space that
the flow maps into itself, so that ``f* = 0`` is attained, by a matrix with eigenvalues ``exp((i mu + j lambda) dt)``.
Monomials are nearly dependent: the condition number grows quickly with the degree.
Shapes: ``x [n, 2]``, ``psi [n, d]``, ``K`` is the weight ``[d, d]`` of one linear layer without bias.
Reference: Colbrook, Mezic and Stepanenko 2024 (limits of such least squares); Brunton et al. 2016 (the system).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.problem import Problem, Split, batch_size, generator
from curvebench.tasks.softmax import jax_softmax, torch_softmax

Array = npt.NDArray[np.float64]
MU, LAMBDA, DT = -0.05, -1.0, 0.5


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n`` (pairs of states), ``degree``, ``init`` (deviation of the initial matrix).

    Raises:
        ValueError: a degree below 2 (then x2 is no observable), or fewer pairs than observables.
    """
    options: Mapping[str, Any] = scale.options
    n, degree = int(options["n"]), int(options["degree"])
    if degree < 2 or n < len(monomials(degree)):
        raise ValueError(f"koopman: n = {n}, degree = {degree}: need degree >= 2, n >= the number of observables")
    states = generator("koopman", "instance", str(n)).uniform(-1, 1, (n, 2))
    now, later = observables(states, degree), observables(flow(states), degree)
    d = now.shape[1]
    start = generator(card.name, seed_block, "init").standard_normal((d, d))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": float(options["init"]) * start},
        train=Split(now, later),
        criterion="squared-norm",
        metric="gap",
        torch_module=lambda: torch_softmax(d, d),
        jax_apply=jax_softmax,
        batch=batch_size(scale),
        optimum=0.0,
    )


def monomials(degree: int) -> list[tuple[int, int]]:
    """Exponents ``(i, j)`` with ``0 < i + 2 j <= degree``, by ``i + 2 j``, then ``j``."""
    return [(total - 2 * j, j) for total in range(1, degree + 1) for j in range(total // 2 + 1)]


def observables(states: Array, degree: int) -> Array:
    """``[n, d]`` of ``[n, 2]``."""
    return np.stack([states[:, 0] ** i * states[:, 1] ** j for i, j in monomials(degree)], axis=1)


def flow(states: Array) -> Array:
    """The states ``[n, 2]`` after ``DT``: ``x2 - c x1^2`` decays at its own rate, ``c = lambda / (lambda - 2 mu)``."""
    c = LAMBDA / (LAMBDA - 2 * MU)
    x1, x2 = states.T
    later = np.exp(MU * DT) * x1
    return np.stack([later, np.exp(LAMBDA * DT) * (x2 - c * x1**2) + c * later**2], axis=1)


def eigenvalues(degree: int) -> Array:
    """``exp((i mu + j lambda) dt)`` of the exact matrix, descending."""
    return np.sort([np.exp((i * MU + j * LAMBDA) * DT) for i, j in monomials(degree)])[::-1]
