"""A small tanh network on a real regression table: ``f(theta) = mean_i (o(x_i) - y_i)^2 / 2``.

Columns and targets are standardised by the rows that are trained on. A random tenth of the training part is held out
for validation; the metric is the mean squared error there, in units of the targets' variance, so that the mean of the
targets alone scores about 1. The test part is split 0's of the twenty that the literature uses.
Shapes: ``x [batch, d]``, outputs and targets ``[batch, 1]``.
Reference: Hernandez-Lobato and Adams 2015, whose networks have one hidden layer of 50 units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks import tables
from curvebench.tasks.autoencoder import widths
from curvebench.tasks.mlp import check_activation, initial, jax_mlp, torch_mlp
from curvebench.tasks.problem import Problem, Split, batch_size, generator


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``hidden`` (e.g. ``"50"``), ``activation``; the card's data set decides the table.

    Raises:
        ValueError: an unknown activation, widths that are none, or a table too small to hold rows out.
    """
    options: Mapping[str, Any] = scale.options
    rows = tables.regression(str(card.dataset))
    kept = tables.held_out(rows.train, str(card.dataset))
    train, validation, *rest = (
        Split(s.inputs, s.targets[:, None]) for s in tables.scaled(kept if rows.test is None else (*kept, rows.test))
    )
    sizes = [train.inputs.shape[1], *widths(str(options["hidden"])), 1]
    activation = check_activation(str(options["activation"]))
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=initial(generator(card.name, seed_block, "init"), sizes),
        train=train,
        validation=validation,
        test=rest[0] if rest else None,
        criterion="squared",
        metric="squared-error",
        torch_module=lambda: torch_mlp(sizes, activation),
        jax_apply=jax_mlp(len(sizes) - 1, activation),
        batch=batch_size(scale),
    )
