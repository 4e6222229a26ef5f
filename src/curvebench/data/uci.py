"""UCI regression sets with the twenty splits that the literature on Bayesian networks uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.data import roots
from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard


class Regression(NamedTuple):
    """A table and its splits."""

    features: npt.NDArray[np.float64]  # [n, d], as published, not scaled
    targets: npt.NDArray[np.float64]  # [n]
    splits: tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], ...]  # (train rows, test rows), a partition each


def load_uci(folder: Path | None = None, *, card: DatasetCard) -> Regression:
    """Check the files against the card and read them.

    Args:
        folder: holds ``<name>/data/data.txt`` and its fellows; default: where the data set is found.
        card: which set; its splits fix the sizes of split 0.

    Raises:
        DataError: a file is missing, truncated, not the card's, or a split is no partition of the rows.
    """
    folder = folder or roots.locate(card)
    roots.verify(card, folder)
    mend = roots.mend(card)
    place = (folder / card.files[0].path).parent
    try:
        table = np.loadtxt(place / "data.txt", dtype=np.float64, ndmin=2)
        columns, target = _indices(place / "index_features.txt"), _indices(place / "index_target.txt")
        count = int(_indices(place / "n_splits.txt")[0])
        splits = tuple(
            (_indices(place / f"index_train_{k}.txt"), _indices(place / f"index_test_{k}.txt")) for k in range(count)
        )
    except (ValueError, OSError) as error:
        raise DataError(f"{card.name}: {place} cannot be read ({error}); {mend}") from error
    rows = np.arange(len(table))
    for number, (train, test) in enumerate(splits):
        if not np.array_equal(np.sort(np.concatenate([train, test])), rows):
            raise DataError(f"{card.name}: split {number} is no partition of the {len(rows):,} rows; {mend}")
    if columns.max() >= table.shape[1] or len(target) != 1 or target[0] >= table.shape[1]:
        raise DataError(f"{card.name}: a column number lies outside the {table.shape[1]} columns; {mend}")
    if (len(splits[0][0]), len(splits[0][1])) != (card.splits["train"], card.splits["test"]):
        raise DataError(f"{card.name}: split 0 has not the card's sizes {dict(card.splits)}; {mend}")
    return Regression(np.ascontiguousarray(table[:, columns]), table[:, target[0]].copy(), splits)


def _indices(path: Path) -> npt.NDArray[np.int64]:
    return np.loadtxt(path, dtype=np.float64, ndmin=1).astype(np.int64)  # some are written as 1.000e+00
