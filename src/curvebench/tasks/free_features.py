"""The unconstrained-features model: features are free variables; nonconvex, with a minimum in closed form.

``f = ||W_L ... W_1 H - Y||^2 / (2 N) + l2/2 (||H||^2 + sum_j ||W_j||^2)`` with ``Y = I_K (x) 1_n'``, ``N = K n``.
A deep linear network on one-hot inputs: ``H`` is the first layer's weight. With ``m`` factors in all, the least sum of
squares that makes a product with singular values ``s_i`` is ``m sum_i s_i^(2/m)``, and ``Y`` has K singular values
sqrt(n), so ``f* = K min_s (sqrt(n) - s)^2 / (2 N) + m l2/2 s^(2/m)`` (m = 2: soft thresholding at ``N l2``).
At the minimum the classes collapse: features equal their class means (NC1), which form an orthogonal frame (NC2), to
which the classifier is aligned (NC3).
Shapes: inputs one-hot ``[batch, N]``, ``H [d, N]``, ``W_1 [d, d]``, ``W_L [K, d]``, outputs ``[batch, K]``.
Reference: Dang et al., "Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data", 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.mlp import initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``classes, per_class, d, l2``, ``factors`` (2: W H; 3: W_2 W_1 H), ``init`` (times 1/sqrt(fan in)).

    Raises:
        ValueError: d < classes, for which the closed form does not hold, or fewer than two factors.
    """
    options: Mapping[str, Any] = scale.options
    classes, per_class, d, factors = (int(options[key]) for key in ("classes", "per_class", "d", "factors"))
    if d < classes or factors < 2:
        raise ValueError(f"free features: d = {d}, factors = {factors}: need d >= classes = {classes}, factors >= 2")
    n, l2 = classes * per_class, float(options["l2"])
    sizes = [n, *[d] * (factors - 1), classes]
    gain = float(options["init"]) ** 2
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), sizes, gain=gain, bias=False),
        train=Split(np.eye(n), np.repeat(np.eye(classes), per_class, axis=0)),
        criterion="squared-norm",
        metric="gap",
        torch_module=lambda: torch_mlp(sizes, "identity", bias=False),
        jax_apply=jax_mlp(factors, "identity"),
        batch=batch_size(scale),
        l2=l2,
        optimum=minimum(classes, per_class, l2, factors),
    )


def minimum(classes: int, per_class: int, l2: float, factors: int) -> float:
    """``f* = K min_s (sqrt(n) - s)^2 / (2 K n) + m l2/2 s^(2/m)``: closed form for m = 2, else scalar minimisation.

    The scalar function has at most one local minimum besides s = 0, where the fixed point
    ``s = sqrt(n) - N l2 s^(2/m - 1)`` converges from above.
    """
    n, top = classes * per_class, float(np.sqrt(per_class))

    def value(s: float) -> float:
        return float(classes * ((top - s) ** 2 / (2 * n) + factors * l2 / 2 * s ** (2 / factors)))

    if factors == 2:
        return value(max(top - n * l2, 0.0))
    s = top
    for _ in range(10_000):
        before, s = s, top - n * l2 * s ** (2 / factors - 1)
        if s <= 0:
            return value(0.0)
        if abs(s - before) < 1e-16 * top:
            break
    return min(value(s), value(0.0))


class Collapse(NamedTuple):
    """Distances from neural collapse: 0 at the minimum.

    ``within``: variance within classes over that between them (NC1). ``frame``: class means from an orthogonal frame of
    equal norms (NC2). ``alignment``: classifier from the class means, both normalised (NC3).
    """

    within: float
    frame: float
    alignment: float


def collapse(features: Array, classifier: Array, classes: int) -> Collapse:
    """The three distances of ``features [d, N]`` (class by class) and ``classifier [K, d]``."""
    grouped = features.reshape(len(features), classes, -1)
    means = grouped.mean(axis=2)
    spread = grouped - means[:, :, None]
    between = means - means.mean(axis=1, keepdims=True)
    gram = means.T @ means
    target = np.eye(classes) / np.sqrt(classes)
    return Collapse(
        float((spread**2).mean() / (between**2).mean()),
        float(np.linalg.norm(gram / np.linalg.norm(gram) - target)),
        float(np.linalg.norm(classifier / np.linalg.norm(classifier) - means.T / np.linalg.norm(means))),
    )
