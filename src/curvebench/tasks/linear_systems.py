"""Symmetric positive definite systems ``A x = b`` as energies: ``f(x) = (x - x*)' A (x - x*) / 2``, ``f* = 0``.

``poisson``: the Laplacian on a grid of ``side^dimensions`` inner points with zero boundary, written as its differences
along the edges, ``f(x) = ||D x - D x*||^2 / 2`` with ``A = D'D``; ``x*`` by the sine transform, in which ``A`` is
diagonal. ``riesz``: the symmetric Toeplitz matrix of the fractional centred difference of order ``alpha`` in (1, 2),
written as ``d`` rows ``sqrt(d) R`` of least squares with ``A = R'R``; its condition number grows as ``d^alpha``.
``b`` is standard normal, scaled so that ``f(0) = 1``: a value is the relative error in the norm of ``A``, squared.
Shapes: ``x [side^dimensions]`` (Poisson) or the weight ``[1, d]`` of one linear layer without bias (Riesz).
Reference: Kaneda et al. 2023 (grids of a learned conjugate-direction method); Ortigueira 2006 (fractional differences).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gamma
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.least_squares import jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``system``, ``init`` (deviation of the start over that of the solution); Poisson: ``side, dimensions``.

    Riesz: ``d``, ``alpha``.

    Raises:
        ValueError: an unknown system, or sizes or an order that are none.
    """
    options: Mapping[str, Any] = scale.options
    init, noise = float(options["init"]), generator(card.name, seed_block, "init")
    if options["system"] == "poisson":
        return _poisson(card, scale, seed_block, int(options["side"]), int(options["dimensions"]), init, noise)
    if options["system"] == "riesz":
        return _riesz(card, scale, seed_block, int(options["d"]), float(options["alpha"]), init, noise)
    raise ValueError(f"linear systems: system = {options['system']!r}: must be 'poisson' or 'riesz'")


def _poisson(
    card: TaskCard,
    scale: TaskScale,
    seed_block: int,
    side: int,
    dimensions: int,
    init: float,
    noise: np.random.Generator,
) -> Problem:
    solution = poisson(side, dimensions)
    start = {"x": init * solution.std() * noise.standard_normal(solution.size)}

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        return edges(xp, p["x"].reshape(solution.shape))[None]

    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=start,
        train=Split(np.zeros((1, 1)), edges(np, solution)[None]),
        criterion="squared-norm",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, start),
        jax_apply=jax_expression(outputs),
        batch=batch_size(scale),
        optimum=0.0,
    )


def edges(xp: Any, x: Any) -> Any:
    """``D x``: differences along all edges of the grid, those to the boundary's zeros included, as one vector."""
    found = []
    for axis in range(x.ndim):
        lines = xp.swapaxes(x, 0, axis)
        border = 0 * lines[:1]
        found.append((xp.concatenate([lines, border]) - xp.concatenate([border, lines])).reshape(-1))
    return xp.concatenate(found)


def poisson(side: int, dimensions: int) -> Array:
    """``x* [side, ...]``; the same for every seed block.

    Raises:
        ValueError: a side below 2, or not 1 to 3 dimensions.
    """
    from scipy.fft import dstn, idstn

    if side < 2 or not 1 <= dimensions <= 3:
        raise ValueError(f"poisson: side = {side}, dimensions = {dimensions}: need side >= 2, 1 to 3 dimensions")
    shape = (side,) * dimensions
    b = generator("linear-systems", "instance", f"poisson/{side}/{dimensions}").standard_normal(shape)
    each = 2 - 2 * np.cos(np.pi * np.arange(1, side + 1) / (side + 1))
    eigenvalues = sum(each.reshape([-1 if k == axis else 1 for k in range(dimensions)]) for axis in range(dimensions))
    x: Array = idstn(dstn(b, type=1) / eigenvalues, type=1)
    return np.ascontiguousarray(x / np.sqrt(np.sum(x * b) / 2))


def _riesz(
    card: TaskCard, scale: TaskScale, seed_block: int, d: int, alpha: float, init: float, noise: np.random.Generator
) -> Problem:
    root, solution = riesz(d, alpha)
    start = init * solution.std() * noise.standard_normal((1, d))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": start},
        train=Split(np.sqrt(d) * root, np.sqrt(d) * root @ solution),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_linear(d),
        jax_apply=jax_linear,
        batch=batch_size(scale),
        optimum=0.0,
    )


def fractional(d: int, alpha: float) -> Array:
    """First column ``[d]``: ``a_k = (-1)^k Gamma(alpha + 1) / (Gamma(alpha/2 - k + 1) Gamma(alpha/2 + k + 1))``.

    Raises:
        ValueError: d < 2, or alpha outside (1, 2).
    """
    if d < 2 or not 1 < alpha < 2:
        raise ValueError(f"riesz: d = {d}, alpha = {alpha}: need d >= 2 and 1 < alpha < 2")
    k = np.arange(d - 1)
    ratios = (k - alpha / 2) / (k + 1 + alpha / 2)
    return gamma(alpha + 1) / gamma(alpha / 2 + 1) ** 2 * np.cumprod(np.concatenate([[1.0], ratios]))


def riesz(d: int, alpha: float) -> tuple[Array, Array]:
    """``R [d, d]`` upper triangular with ``A = R'R``, and ``x* [d]``; the same for every seed block."""
    from scipy.linalg import cholesky, solve_toeplitz, toeplitz

    column = fractional(d, alpha)
    b = generator("linear-systems", "instance", f"riesz/{d}/{alpha}").standard_normal(d)
    x = solve_toeplitz(column, b)
    return np.ascontiguousarray(cholesky(toeplitz(column))), x / np.sqrt(x @ b / 2)
