"""A deep autoencoder of the digits: ``f(theta) = mean_i sum_j log(1 + exp(o_ij)) - x_ij o_ij``, tanh units.

The criterion is the cross-entropy of Bernoulli pixels with intensities in [0, 1]; it cannot fall below the entropy of
the intensities themselves, ``mean_i sum_j h(x_ij)``, which is the optimum that the gap is measured from. The bound is
attained only by a network that reproduces every pixel: the gap of a good run is small, not zero.
Shapes: images ``[batch, 64]``; the code in the middle is the narrowest layer.
Reference: Hinton and Salakhutdinov 2006; Martens 2010; Martens and Grosse 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.data.digits import load_digits
from curvebench.tasks.mlp import initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``hidden`` (widths of the encoder, e.g. ``"32-16-8"``; the decoder mirrors them).

    Raises:
        ValueError: ``hidden`` is not such a list.
    """
    options: Mapping[str, Any] = scale.options
    encoder = widths(str(options["hidden"]))
    images = load_digits().images / 16.0
    sizes = [images.shape[1], *encoder, *reversed(encoder[:-1]), images.shape[1]]
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), sizes),
        train=Split(images, images),
        criterion="bernoulli",
        metric="gap",
        torch_module=lambda: torch_mlp(sizes, "tanh"),
        jax_apply=jax_mlp(len(sizes) - 1, "tanh"),
        batch=batch_size(scale),
        optimum=entropy(images),
    )


def widths(hidden: str) -> list[int]:
    """``"32-16-8"`` -> [32, 16, 8].

    Raises:
        ValueError: it is not a list of positive integers.
    """
    parts = hidden.split("-")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"hidden = {hidden!r}: must be positive integers with hyphens between, e.g. '32-16-8'")
    return [int(part) for part in parts]


def entropy(intensities: npt.NDArray[np.float64]) -> float:
    """``mean_i sum_j -x log x - (1 - x) log(1 - x)`` of ``[n, pixels]``."""
    total = np.zeros_like(intensities)
    for x in (intensities, 1 - intensities):
        total -= np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)
    return float(total.sum() / len(intensities))
