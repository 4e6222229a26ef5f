"""A physics-informed network for Poisson's equation on the unit cube, ``-lap u = g``, ``u = 0`` on the boundary.

``f(theta) = mean_interior (lap u + g)^2 / 2 + mean_boundary (weight u)^2 / 2`` with ``u`` a tanh network and ``g = d
pi^2 prod_k sin(pi x_k)``; the solution is ``u = prod_k sin(pi x_k)`` and the metric the relative L2 error on points
that are not trained on. Each sample is a point with two coefficients ``(c_lap, c_u)``, its output ``c_lap lap u(x) +
c_u u(x)``, its target the same of the solution: (1, 0) in the interior, (0, weight) on the boundary, both times the
square root that turns the mean over all samples into the two means above; (0, 1) where the error is measured. The
Laplacian is carried forward with value and gradient from layer to layer ("forward Laplacian"), so that it has all the
derivatives that curvature needs. Shapes: inputs ``[batch, d + 2]``, outputs ``[batch]``. Reference: Müller and
Zeinhofer 2023, whose example has d = 2, 32 units, 900 + 120 points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.autoencoder import widths
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.mlp import initial
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``d``, ``hidden`` (e.g. ``"32"``), ``interior``, ``boundary``, ``held_out`` (points), ``weight``.

    Raises:
        ValueError: a number of points below 1.
    """
    options: Mapping[str, Any] = scale.options
    d, interior, boundary, held = (int(options[key]) for key in ("d", "interior", "boundary", "held_out"))
    if min(d, interior, boundary, held) < 1:
        raise ValueError(f"pinn: d, interior, boundary, held_out = {d}, {interior}, {boundary}, {held}: must be >= 1")
    sizes = [d, *widths(str(options["hidden"])), 1]
    start = {
        name.replace(".", "_"): value
        for name, value in initial(generator(card.name, seed_block, "init"), sizes).items()
    }
    train, validation, test = points(d, interior, boundary, held, float(options["weight"]))

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        value, laplacian = network(xp, p, inputs[:, :d], c["basis"], len(sizes) - 1)
        return inputs[:, d] * laplacian + inputs[:, d + 1] * value

    constants = {"basis": np.eye(d)}
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=start,
        train=train,
        validation=validation,
        test=test,
        criterion="squared",
        metric="relative-l2",
        torch_module=lambda: torch_expression(outputs, start, constants),
        jax_apply=jax_expression(outputs, constants),
        batch=batch_size(scale),
    )


def network(xp: Any, p: Mapping[str, Any], x: Any, basis: Any, depth: int) -> tuple[Any, Any]:
    """``u(x)`` and its Laplacian ``[batch]`` for points ``[batch, d]``: ``(h, dh/dx, lap h)`` through every layer."""
    value, slope, laplacian = x, basis[None] + 0 * x[:, :, None], 0 * x
    for layer in range(depth):
        weight = p[f"{2 * layer}_weight"]
        value, slope, laplacian = value @ weight.T + p[f"{2 * layer}_bias"], slope @ weight.T, laplacian @ weight.T
        if layer < depth - 1:
            value = xp.tanh(value)
            first = 1 - value**2
            laplacian = first * laplacian - 2 * value * first * (slope**2).sum(1)
            slope = first[:, None] * slope
    return value[:, 0], laplacian[:, 0]


def solution(x: Array) -> Array:
    """``prod_k sin(pi x_k)`` of points ``[n, d]``."""
    values: Array = np.prod(np.sin(np.pi * x), axis=1)
    return values


def points(d: int, interior: int, boundary: int, held: int, weight: float) -> tuple[Split, Split, Split]:
    """Training samples (interior then boundary), validation and test points; the same for every seed block."""
    rng = generator("pinn", "instance", f"{d}/{interior}/{boundary}/{held}")
    inside = rng.uniform(0, 1, (interior, d))
    edge = rng.uniform(0, 1, (boundary, d))
    edge[np.arange(boundary), np.arange(boundary) % d] = (np.arange(boundary) // d) % 2
    total = interior + boundary

    def samples(x: Array, coefficients: Sequence[float]) -> Split:
        targets = (coefficients[1] - coefficients[0] * d * np.pi**2) * solution(x)
        return Split(np.concatenate([x, np.broadcast_to(coefficients, (len(x), 2))], axis=1), targets)

    parts = samples(inside, (np.sqrt(total / interior), 0.0)), samples(edge, (0.0, weight * np.sqrt(total / boundary)))
    train = Split(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return train, samples(rng.uniform(0, 1, (held, d)), (0.0, 1.0)), samples(rng.uniform(0, 1, (held, d)), (0.0, 1.0))
