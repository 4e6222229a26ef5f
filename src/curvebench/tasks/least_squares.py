"""Least squares with a controlled spectrum: ``f(x) = ||A x - b||^2 / (2 n)``, ``A = sqrt(n) U S V^T``.

``S`` is logarithmically spaced from 1 to 1/condition, so the Hessian ``V S^2 V^T`` has condition number condition^2
and largest eigenvalue 1; ``V`` is a random rotation, or the identity when ``rotation = false`` (then diagonal methods
are exact). ``b = A x_true + noise``; the optimum is ``lstsq``'s, and its residual is computed in float64.
Shapes: ``A [n, d]``, ``b [n]``, ``x`` is the weight ``[1, d]`` of one linear layer without bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.problem import Problem, Split, batch_size, generator

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n, d, condition`` (of A), ``rotation`` (bool), ``noise`` (standard deviation of b's noise).

    ``init`` multiplies the standard normal start; 0 starts at the origin.
    """
    options: Mapping[str, Any] = scale.options
    a, b = design(int(options["n"]), int(options["d"]), float(options["condition"]), bool(options["rotation"]),
                  float(options["noise"]))  # fmt: skip
    best = np.linalg.lstsq(a, b)[0]
    start = generator(card.name, seed_block, "init").standard_normal((1, a.shape[1]))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"0.weight": float(options.get("init", 1.0)) * start},
        train=Split(a, b),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_linear(a.shape[1]),
        jax_apply=jax_linear,
        batch=batch_size(scale),
        optimum=float(0.5 * np.mean((a @ best - b) ** 2)),
    )


def design(
    n: int, d: int, condition: float, rotation: bool, noise: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return ``A [n, d]`` with singular values ``sqrt(n) logspace(0, -log10(condition), d)`` and ``b [n]``.

    Raises:
        ValueError: n < d or condition < 1.
    """
    if n < d or condition < 1:
        raise ValueError(f"least squares: n = {n}, d = {d}, condition = {condition}: need n >= d and condition >= 1")
    rng = generator("least-squares", "instance", f"{n}/{d}/{condition}/{rotation}")
    u = np.linalg.qr(rng.standard_normal((n, d)))[0]
    v = np.linalg.qr(rng.standard_normal((d, d)))[0] if rotation else np.eye(d)
    a = np.sqrt(n) * (u * np.logspace(0, -np.log10(condition), d)) @ v.T
    b = a @ rng.standard_normal(d) + noise * rng.standard_normal(n)
    return np.ascontiguousarray(a), b


def torch_linear(d: int) -> nn.Module:
    """``x -> x w^T``, outputs ``[batch]``."""
    from torch import nn

    return nn.Sequential(nn.Linear(d, 1, bias=False), nn.Flatten(0))


def jax_linear(train: bool) -> Apply:
    """The twin of :func:`torch_linear`."""
    from curvebench.tasks.layers_jax import linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        return linear(params, "0", inputs, tap)[..., 0], {}

    return apply
