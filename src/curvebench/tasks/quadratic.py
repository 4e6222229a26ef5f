"""Quadratics with a chosen spectrum, aligned with the axes or rotated: ``f(x) = x' Q diag(l) Q' x / 2``.

``Q`` is the identity (``rotation = false``) or a random rotation; the start is ``Q z`` with the same ``z`` in both, so
that a method whose iterates do not depend on the basis draws the same curve twice. Written as least squares with ``d``
rows ``sqrt(d l_i) q_i`` and zero targets. Spectra: ``log`` (from 1 down to 1/condition) and ``deepobs`` (90 % of the
eigenvalues uniform in [0, 1], 10 % in [30, 60]; Schneider, Balles and Hennig 2019, ``quadratic_deep``).

With ``samples = n > 0`` the objective is noisy as in DeepOBS: ``f(x) = mean_i (x - z_i)' H (x - z_i) / 2`` with
``z_i ~ N(0, I)``; its minimiser is the mean of the ``z_i``.
Shapes: ``H [d, d]``, ``x [d]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.least_squares import jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``d``, ``spectrum`` (``log`` or ``deepobs``), ``condition``, ``rotation``, ``samples`` (0: no noise)."""
    options: Mapping[str, Any] = scale.options
    d, samples = int(options["d"]), int(options["samples"])
    eigenvalues = spectrum(str(options["spectrum"]), d, float(options["condition"]))
    q = rotation(d) if options["rotation"] else np.eye(d)
    start = q @ generator("quadratic", seed_block, "init").standard_normal(d)
    if samples:
        return _noisy(card, scale, seed_block, eigenvalues, q, start, samples)
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": start[None]},
        train=Split(np.sqrt(d * eigenvalues)[:, None] * q.T, np.zeros(d)),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_linear(d),
        jax_apply=jax_linear,
        batch=batch_size(scale),
        optimum=0.0,
    )


def spectrum(kind: str, d: int, condition: float) -> Array:
    """Eigenvalues ``[d]``.

    Raises:
        ValueError: an unknown kind, d < 2 or condition < 1.
    """
    if d < 2 or condition < 1:
        raise ValueError(f"quadratic: d = {d}, condition = {condition}: need d >= 2 and condition >= 1")
    if kind == "log":
        return np.logspace(0, -np.log10(condition), d)
    if kind == "deepobs":
        rng = generator("quadratic", "instance", f"deepobs/{d}")
        large = d // 10
        return np.concatenate([rng.uniform(0, 1, d - large), rng.uniform(30, 60, large)])
    raise ValueError(f"quadratic: spectrum = {kind!r}: must be 'log' or 'deepobs'")


def rotation(d: int) -> Array:
    """A random orthogonal matrix ``[d, d]``, the same for every seed block."""
    q, r = np.linalg.qr(generator("quadratic", "instance", f"rotation/{d}").standard_normal((d, d)))
    return np.ascontiguousarray(q * np.sign(np.diag(r)))


def _noisy(
    card: TaskCard, scale: TaskScale, seed_block: int, eigenvalues: Array, q: Array, start: Array, samples: int
) -> Problem:
    root = np.sqrt(eigenvalues)[:, None] * q.T  # H = root' root
    centres = generator("quadratic", "instance", f"noise/{samples}").standard_normal((samples, len(eigenvalues)))
    spread = (centres - centres.mean(axis=0)) @ root.T

    def residuals(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], x: Any) -> Any:
        return (p["x"] - x) @ c["root"].T

    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"x": start},
        train=Split(centres, np.zeros_like(centres)),
        criterion="squared-norm",
        metric="gap",
        torch_module=lambda: torch_expression(residuals, {"x": start}, {"root": root}),
        jax_apply=jax_expression(residuals, {"root": root}),
        batch=batch_size(scale),
        optimum=float((spread**2).sum() / (2 * samples)),
    )
