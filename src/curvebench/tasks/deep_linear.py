"""A deep linear network with squared loss: nonconvex, yet K-FAC's blocks are exact, and its minimum is known.

``f(W) = mean_i ||W_L ... W_1 x_i - y_i||^2 / 2`` with ``y = M x + noise``. No layer is narrower than the outputs, so
the product can be any matrix and the least value is that of the linear regression, which ``lstsq`` gives.
Shapes: ``x [n, d]`` standard normal times a spectrum from 1 to ``1 / spread``, ``y [n, k]``, ``W_l [out, in]``.
Reference: Bernacchia, Lengyel and Hennequin 2018 for what is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.autoencoder import widths
from curvebench.tasks.mlp import initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n, d``, ``hidden`` (e.g. ``"8-8"``), outputs ``k``, ``noise``, ``spread`` of the inputs' scales.

    Raises:
        ValueError: a hidden layer narrower than the outputs, so that the minimum would not be the regression's.
    """
    options: Mapping[str, Any] = scale.options
    n, d, k = (int(options[key]) for key in ("n", "d", "k"))
    hidden = widths(str(options["hidden"]))
    if min(hidden) < min(k, d):
        raise ValueError(f"deep linear: hidden = {options['hidden']!r}: must be at least {min(k, d)} wide everywhere")
    x, y = samples(n, d, k, float(options["noise"]), float(options["spread"]))
    sizes = [d, *hidden, k]
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), sizes, bias=False),
        train=Split(x, y),
        criterion="squared-norm",
        metric="gap",
        torch_module=lambda: torch_mlp(sizes, "identity", bias=False),
        jax_apply=jax_mlp(len(sizes) - 1, "identity"),
        batch=batch_size(scale),
        optimum=least(x, y),
    )


def samples(n: int, d: int, k: int, noise: float, spread: float) -> tuple[Array, Array]:
    """Inputs ``[n, d]`` and targets ``[n, k]``, the same for every seed block."""
    rng = generator("deep-linear", "instance", f"{n}/{d}/{k}")
    x = rng.standard_normal((n, d)) * np.logspace(0, -np.log10(spread), d)
    return x, x @ rng.standard_normal((d, k)) / np.sqrt(d) + noise * rng.standard_normal((n, k))


def least(x: Array, y: Array) -> float:
    """The least value of ``mean_i ||M x_i - y_i||^2 / 2`` over matrices M."""
    residual = x @ np.linalg.lstsq(x, y, rcond=None)[0] - y
    return float(np.square(residual).sum() / (2 * len(x)))
