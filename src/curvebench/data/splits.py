"""Fixed splits that depend on nothing but names and labels: no library's random generator, no version of one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curvebench.spec import seed


def stratified(labels: npt.NDArray[np.int64], sizes: Sequence[int], *key: str) -> tuple[npt.NDArray[np.int64], ...]:
    """Split the rows into parts of exactly these sizes, every class spread evenly over the parts.

    Rows are shuffled inside their class by ``seed(*key, row)``; a row's place is (rank + 1/2) / class size; sorting by
    place and cutting at ``sizes`` gives each part of m rows m * n_class / n rows of a class, to within one.

    Args:
        labels: [n] class of each row.
        sizes: rows of each part; they add up to n.
        key: names the split, e.g. the data set.

    Returns:
        One ascending array of row numbers per part; disjoint, together all rows.

    Raises:
        ValueError: the sizes do not add up to n.
    """
    if sum(sizes) != len(labels) or min(sizes) < 0:
        raise ValueError(f"split sizes {list(sizes)} must be at least 0 and add up to {len(labels)} rows")
    keys = np.array([seed("split", *key, row) for row in range(len(labels))], dtype=np.int64)
    place = np.empty(len(labels), dtype=np.float64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(keys[rows], kind="stable")]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    order = np.lexsort((keys, place))
    cuts = [0, *itertools.accumulate(sizes)]
    return tuple(np.sort(order[a:b]) for a, b in itertools.pairwise(cuts))
