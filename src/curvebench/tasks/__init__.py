"""The tasks: a NumPy description (:class:`~curvebench.tasks.problem.Problem`) and its torch and jax twins.

Both twins start from identical bits: initial parameters, data and batches are NumPy functions of (task, seed block).
"""

from __future__ import annotations

import importlib

from curvebench.cards import TaskCard
from curvebench.errors import CardError
from curvebench.tasks.problem import Problem


def load(card: TaskCard, scale: str, seed_block: int) -> Problem:
    """Build the problem that a task card describes.

    Args:
        card: the task's card; its module must define ``problem(card, scale, seed_block) -> Problem``.
        scale: ``quick``, ``standard`` or ``paper``.
        seed_block: fixes initial parameters and data order.

    Raises:
        CardError: the card's module cannot be imported or the scale is not on the card.
        DataError: a data file is missing or is not the official one.
    """
    try:
        module = importlib.import_module(card.module)
    except ModuleNotFoundError as error:
        raise CardError(f"tasks/{card.name}.toml: module = {card.module!r}: {error}") from error
    problem: Problem = module.problem(card, card.at(scale), seed_block)
    return problem
