"""Teacher and student: a two-layer network learns another one from noiseless samples, ``f* = 0``.

``f(theta) = mean_i (a' phi(W x_i + c) + e - y_i)^2 / 2`` with ``y_i`` from a network of the same form with fewer units:
the problem is nonconvex, its Gauss-Newton matrix singular but consistent.
Shapes: ``x [n, d]`` standard normal, ``W [student, d]``, outputs and targets ``[n, 1]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.mlp import check_activation, initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n, d``, hidden units ``teacher`` and ``student``, ``activation`` (``relu`` or ``tanh``).

    Raises:
        ValueError: the student has fewer units than the teacher, so that 0 need not be reached.
    """
    options: Mapping[str, Any] = scale.options
    n, d, teacher, student = (int(options[key]) for key in ("n", "d", "teacher", "student"))
    activation = check_activation(str(options["activation"]))
    if student < teacher:
        raise ValueError(f"teacher-student: student = {student}: must be at least teacher = {teacher}")
    rng = generator("teacher-student", "instance", f"{n}/{d}/{teacher}")
    x = rng.standard_normal((n, d))
    hidden = x @ rng.standard_normal((d, teacher)) / np.sqrt(d)
    hidden = np.maximum(hidden, 0) if activation == "relu" else np.tanh(hidden)
    y = hidden @ rng.standard_normal((teacher, 1)) / np.sqrt(teacher)
    sizes = [d, student, 1]
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), sizes, gain=2.0 if activation == "relu" else 1.0),
        train=Split(x, y),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_mlp(sizes, activation),
        jax_apply=jax_mlp(2, activation),
        batch=batch_size(scale),
        optimum=0.0,
    )
