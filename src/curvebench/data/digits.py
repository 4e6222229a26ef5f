"""Optical recognition of handwritten digits: 1,797 images of 8 x 8, the UCI test part that scikit-learn carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.data import scikit_learn, splits

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard


class Digits(NamedTuple):
    """Images, classes and a fixed stratified split."""

    images: npt.NDArray[np.float64]  # [1797, 64], row-major 8 x 8, integers in [0, 16]
    labels: npt.NDArray[np.int64]  # [1797], 0..9
    train: npt.NDArray[np.int64]  # [1257] rows, ascending
    validation: npt.NDArray[np.int64]  # [180]
    test: npt.NDArray[np.int64]  # [360]


def load_digits(folder: Path | None = None, *, card: DatasetCard | None = None) -> Digits:
    """Read the digits and cut them by :func:`curvebench.data.splits.stratified`, sizes from the card.

    Args:
        folder: ignored; the data come with scikit-learn.
        card: default ``datasets/digits.toml``.

    Raises:
        MissingPackageError: scikit-learn is not installed.
        DataError: scikit-learn's file is not the one that the card fixes.
    """
    card = card or cards.dataset("digits")
    images, labels = scikit_learn.table(card, "digits.csv.gz", header=0)
    sizes = [card.splits[part] for part in ("train", "validation", "test")]
    train, validation, test = splits.stratified(labels, sizes, card.name)
    return Digits(images, labels, train, validation, test)
