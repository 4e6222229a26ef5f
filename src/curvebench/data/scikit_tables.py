"""Wine and diabetes, tables that scikit-learn carries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.data import scikit_learn

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard


class Table(NamedTuple):
    """A table as measured."""

    features: npt.NDArray[np.float64]  # [n, d]
    targets: npt.NDArray[np.int64]  # [n], classes (wine: 0..2) or whole numbers (diabetes: 25..346)


def load_wine(folder: Path | None = None, *, card: DatasetCard | None = None) -> Table:
    """178 wines of three cultivars, 13 features as measured.

    Args:
        folder: ignored; the data come with scikit-learn.
        card: default ``datasets/wine.toml``.

    Raises:
        MissingPackageError: scikit-learn is not installed.
        DataError: scikit-learn's file is not the one that the card fixes.
    """
    return Table(*scikit_learn.table(card or cards.dataset("wine"), "wine_data.csv", header=1))


def load_diabetes(folder: Path | None = None, *, card: DatasetCard | None = None) -> Table:
    """442 patients, 10 features as measured (not scikit-learn's scaled columns), progression after a year.

    Args:
        folder: ignored; the data come with scikit-learn.
        card: default ``datasets/diabetes.toml``.

    Raises:
        MissingPackageError: scikit-learn is not installed.
        DataError: scikit-learn's file is not the one that the card fixes.
    """
    card = card or cards.dataset("diabetes")
    return Table(*scikit_learn.table(card, "diabetes_data_raw.csv.gz", header=0, targets="diabetes_target.csv.gz"))
