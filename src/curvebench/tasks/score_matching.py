"""Denoising score matching on a Gaussian mixture in the plane: regression on noise whose answer is known.

``f(theta) = mean_i ||s(x_i + sigma e_i) + e_i / sigma||^2 / 2`` with fixed draws; its minimiser over all functions is
the score of the smoothed mixture, ``grad log p_sigma``, in closed form. The metric is ``E ||s - grad log p_sigma||^2``
on fresh noisy points; the loss itself has a floor that is not zero. Shapes: noisy points ``[n, 2]``, scores ``[n, 2]``;
the network is tanh, 2-hidden-2.
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
VARIANCE = 0.1
"""Of each component."""


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n``, ``held_out``, ``components``, ``sigma`` (of the noise), ``hidden`` (e.g. ``"64-64"``).

    Raises:
        ValueError: sigma is not positive, or a size is below 1.
    """
    options: Mapping[str, Any] = scale.options
    n, held, components = (int(options[key]) for key in ("n", "held_out", "components"))
    sigma = float(options["sigma"])
    if sigma <= 0 or min(n, held, components) < 1:
        raise ValueError(f"score matching: sigma = {sigma}: must be positive; n, held_out, components at least 1")
    means = centres(components)

    def split(part: str, count: int) -> Split:
        rng = generator("score-matching", "instance", f"{part}/{count}/{components}/{sigma}")
        clean = means[rng.integers(0, components, count)] + np.sqrt(VARIANCE) * rng.standard_normal((count, 2))
        noise = rng.standard_normal((count, 2))
        noisy = clean + sigma * noise
        return Split(noisy, -noise / sigma if part == "train" else score(noisy, means, sigma))

    sizes = [2, *widths(str(options["hidden"])), 2]
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), sizes),
        train=split("train", n),
        validation=split("validation", held),
        test=split("test", held),
        criterion="squared-norm",
        metric="squared-error",
        torch_module=lambda: torch_mlp(sizes, "tanh"),
        jax_apply=jax_mlp(len(sizes) - 1, "tanh"),
        batch=batch_size(scale),
    )


def centres(components: int) -> Array:
    """Means ``[components, 2]``, equally spaced on a circle of radius 2."""
    angles = 2 * np.pi * np.arange(components) / components
    return 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def score(x: Array, means: Array, sigma: float) -> Array:
    """``grad log p_sigma`` at ``x [n, 2]`` of the mixture with equal weights and variance 0.1 + sigma^2."""
    variance = VARIANCE + sigma**2
    towards = means[None] - x[:, None]
    logs = -np.sum(towards**2, axis=2) / (2 * variance)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    found: Array = np.einsum("nk,nkd->nd", weights, towards) / variance
    return found
