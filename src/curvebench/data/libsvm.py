"""LIBSVM's text format, ``label index:value index:value ...`` with indices from 1, read into dense arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.data import roots
from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard

FEATURES = {"a9a": 123, "w8a": 300, "phishing": 68, "mushrooms": 112, "abalone-scale": 8, "housing-scale": 13}
"""Columns of each set: the highest index of a part may be lower (122 in ``a9a.t``)."""
SIGNED = {"a9a", "w8a", "phishing", "mushrooms"}
"""Two classes, given as -1/+1, 0/1 or 1/2: the smaller becomes -1, the larger +1."""


class Table(NamedTuple):
    """Dense features and targets of the training part, and of the test part where there is one."""

    features: npt.NDArray[np.float64]  # [n, d]
    labels: npt.NDArray[np.float64]  # [n], -1 and +1, or real targets
    test_features: npt.NDArray[np.float64] | None
    test_labels: npt.NDArray[np.float64] | None


def load_libsvm(folder: Path | None = None, *, card: DatasetCard) -> Table:
    """Check the files against the card and read them, training part first.

    Args:
        folder: holds the files; default: where the data set is found.
        card: its name says how many features, its splits how many rows.

    Raises:
        DataError: a file is missing, truncated, not the card's, or not of LIBSVM's format.
    """
    folder = folder or roots.locate(card)
    roots.verify(card, folder)
    mend = roots.mend(card)
    parts = [parse(folder / file.path, FEATURES[card.name], mend) for file in card.files]
    wanted = [card.splits["train"], *([card.splits["test"]] if len(parts) > 1 else [])]
    found = [len(labels) for _, labels in parts]
    if found != wanted:
        raise DataError(f"{card.name}: {folder} has {found} rows, expected {wanted}; {mend}")
    if card.name in SIGNED:
        low, high = _two_classes(parts[0][1], card, mend)
        parts = [(x, np.where(y == low, -1.0, np.where(y == high, 1.0, np.nan))) for x, y in parts]
        if any(np.isnan(y).any() for _, y in parts):
            raise DataError(f"{card.name}: a label is neither {low:g} nor {high:g}; {mend}")
    test = parts[1] if len(parts) > 1 else (None, None)
    return Table(*parts[0], *test)


def parse(path: Path, features: int, mend: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Dense ``[n, features]`` and labels ``[n]``; what a row does not name is 0.

    Raises:
        DataError: a word is no number, an index lies outside 1..features or is named twice in a row.
    """
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    pairs = np.array([line.count(b":") for line in lines])
    try:
        numbers = np.array(b" ".join(lines).replace(b":", b" ").split(), dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{path} is not in LIBSVM's format ({error}); {mend}") from error
    starts = np.concatenate([[0], np.cumsum(1 + 2 * pairs)])
    if starts[-1] != len(numbers):
        raise DataError(f"{path} is not in LIBSVM's format (a word is neither label nor index:value); {mend}")
    here = np.zeros(len(numbers), dtype=bool)
    here[starts[:-1]] = True
    labels, rest = numbers[here], numbers[~here].reshape(-1, 2)
    rows, columns = np.repeat(np.arange(len(lines)), pairs), rest[:, 0].astype(np.int64)
    if rest.size and not ((columns >= 1) & (columns <= features) & (columns == rest[:, 0])).all():
        raise DataError(f"{path}: an index lies outside 1..{features}; {mend}")
    if len(np.unique(rows * (features + 1) + columns)) != len(columns):
        raise DataError(f"{path}: an index is named twice in one row; {mend}")
    dense = np.zeros((len(lines), features))
    dense[rows, columns - 1] = rest[:, 1]
    return dense, labels


def _two_classes(labels: npt.NDArray[np.float64], card: DatasetCard, mend: str) -> tuple[float, float]:
    values = np.unique(labels)
    if len(values) != 2:
        raise DataError(f"{card.name}: labels take {len(values)} values, expected 2; {mend}")
    return float(values[0]), float(values[1])
