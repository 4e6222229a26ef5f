"""Least-squares temporal differences on an Ornstein-Uhlenbeck process whose value function is known.

``dX = -k X dt + s dW``, reward ``-x^2``, discount rate ``b``: ``V(x) = -x^2 / (b + 2 k) - s^2 / (b (b + 2 k))``. Over
one step the transition is Gaussian and the expected discounted reward ``r(x)`` a quadratic, so that
``V(x) = r(x) + g E V(x')`` holds exactly with ``g = exp(-b dt)``. With features ``phi`` and ``n`` sampled transitions,
``A = mean phi (phi - g phi')'``, ``y = mean phi r``, ``C = mean phi phi'``, the mean squared projected Bellman error is
``f(theta) = (A theta - y)' C^-1 (A theta - y) / 2``: zero at the LSTD solution ``A^-1 y``. Minimising the temporal
differences themselves would end elsewhere (:func:`residual_minimiser`).
Shapes: features ``1, x, ..., x^degree`` over the stationary deviation's powers ``[n, d]``; ``theta`` is the weight
``[1, d]`` of one linear layer without bias, whose ``d`` samples are the rows of ``C^-1/2 A``.
Reference: Jia and Zhou 2022, "Policy Evaluation and Temporal-Difference Learning in Continuous Time and Space".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.least_squares import jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]
K, S, B, DT = 1.0, 1.0, 0.5, 0.1


class Transitions(NamedTuple):
    """Features before and after a step ``[n, d]`` and expected discounted rewards ``[n]``."""

    now: Array
    later: Array
    rewards: Array


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n`` (transitions), ``degree``, ``init`` (deviation of the initial weights).

    Raises:
        ValueError: a degree below 2 (then V is no combination of the features), or fewer transitions than features.
    """
    options: Mapping[str, Any] = scale.options
    rows, targets = bellman(transitions(int(options["n"]), int(options["degree"])))
    d = len(targets)
    start = generator(card.name, seed_block, "init").standard_normal((1, d))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": float(options["init"]) * start},
        train=Split(np.sqrt(d) * rows, np.sqrt(d) * targets),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_linear(d),
        jax_apply=jax_linear,
        batch=batch_size(scale),
        optimum=0.0,
    )


def transitions(n: int, degree: int) -> Transitions:
    """Stationary starts and one exact step each; the same for every seed block.

    Raises:
        ValueError: as :func:`problem`.
    """
    if degree < 2 or n <= degree:
        raise ValueError(f"policy evaluation: n = {n}, degree = {degree}: need degree >= 2 and n > degree")
    rng = generator("policy-evaluation", "instance", str(n))
    spread = S**2 / (2 * K)
    x = np.sqrt(spread) * rng.standard_normal(n)
    decay = np.exp(-K * DT)
    later = decay * x + np.sqrt(spread * (1 - decay**2)) * rng.standard_normal(n)
    fast, slow = ((1 - np.exp(-rate * DT)) / rate for rate in (B + 2 * K, B))
    return Transitions(features(x, degree), features(later, degree), -(x**2 - spread) * fast - spread * slow)


def features(x: Array, degree: int) -> Array:
    """``(x / deviation)^k`` for k = 0 ... degree, ``[n, degree + 1]``."""
    powers: Array = (x[:, None] / np.sqrt(S**2 / (2 * K))) ** np.arange(degree + 1)
    return powers


def truth(degree: int) -> Array:
    """The weights of ``V``."""
    weights = np.zeros(degree + 1)
    weights[0], weights[2] = -(S**2) / (B * (B + 2 * K)), -(S**2) / (2 * K) / (B + 2 * K)
    return weights


def bellman(seen: Transitions) -> tuple[Array, Array]:
    """``C^-1/2 A [d, d]`` and ``C^-1/2 y [d]``, with the Cholesky factor as the root."""
    n, discount = len(seen.rewards), np.exp(-B * DT)
    a = seen.now.T @ (seen.now - discount * seen.later) / n
    root = np.linalg.cholesky(seen.now.T @ seen.now / n)
    found = np.linalg.solve(root, np.concatenate([a, (seen.now.T @ seen.rewards / n)[:, None]], axis=1))
    return np.ascontiguousarray(found[:, :-1]), found[:, -1].copy()


def residual_minimiser(seen: Transitions) -> Array:
    """Weights that minimise ``mean (phi theta - r - g phi' theta)^2``: biased, since one ``x'`` stands for its mean."""
    weights: Array = np.linalg.lstsq(seen.now - np.exp(-B * DT) * seen.later, seen.rewards)[0]
    return weights
