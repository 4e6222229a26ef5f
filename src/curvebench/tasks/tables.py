"""Real tables as least-squares problems want them: standardised columns and targets, a constant column, splits.

What is standardised is standardised by the training rows alone; constant columns stay 0. Shapes: features ``[n, d]``,
targets ``[n]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench import data
from curvebench.tasks.problem import Split, generator

Array = npt.NDArray[np.float64]
HELD_OUT = 10
"""One row in so many of the training part is held out for validation, where a task needs one."""


class Rows(NamedTuple):
    """A regression table as published: the rows to train on, and those that are kept for the end."""

    train: Split
    test: Split | None


def regression(dataset: str) -> Rows:
    """Diabetes, LIBSVM's abalone-scale and housing-scale (no test part), the UCI sets (split 0 of the twenty).

    Raises:
        ValueError: the data set has classes, not real targets.
        DataError: its files are not here, or are not the card's.
    """
    if dataset == "diabetes":
        table = data.load(dataset)
        return Rows(Split(table.features, table.targets.astype(np.float64)), None)
    if dataset in ("abalone-scale", "housing-scale"):
        table = data.load(dataset)
        return Rows(Split(table.features, table.labels), None)
    if dataset.startswith("uci-"):
        table = data.load(dataset)
        train, test = (Split(table.features[rows], table.targets[rows]) for rows in table.splits[0])
        return Rows(train, test)
    raise ValueError(
        f"tables: dataset = {dataset!r}: must be 'diabetes', 'abalone-scale', 'housing-scale' or a UCI set"
    )


def held_out(rows: Split, dataset: str) -> tuple[Split, Split]:
    """The rows that stay in training and those for validation, a random tenth that depends on the data set alone.

    Raises:
        ValueError: fewer than ten rows.
    """
    if len(rows) < HELD_OUT:
        raise ValueError(f"tables: {dataset} has {len(rows)} rows to train on: must have at least {HELD_OUT}")
    order = generator("tables", "instance", dataset).permutation(len(rows))
    cut = len(rows) // HELD_OUT
    first, second = (Split(rows.inputs[part], rows.targets[part]) for part in (order[cut:], order[:cut]))
    return first, second


class Scaler:
    """Mean and deviation of training rows, for all rows of a table.

    Args:
        rows: ``[n, d]``; columns whose deviation is rounding of their size count as constant and become 0.
    """

    def __init__(self, rows: Array) -> None:
        self._mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        constant = deviation <= 1e-12 * np.abs(self._mean)  # a mean of equal numbers may be one bit off
        self._deviation = np.where(constant, np.inf, deviation)

    def __call__(self, rows: Array) -> Array:
        """``(x - mean) / deviation``."""
        scaled: Array = (rows - self._mean) / self._deviation
        return scaled


def scaled(splits: tuple[Split, ...]) -> tuple[Split, ...]:
    """Columns and targets of every split, scaled by those of the first."""
    x, y = Scaler(splits[0].inputs), Scaler(splits[0].targets[:, None])
    return tuple(Split(x(s.inputs), y(s.targets[:, None])[:, 0]) for s in splits)


def with_ones(x: Array) -> Array:
    """A last column of ones."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
