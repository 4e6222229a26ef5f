"""Metrics that are reported beside a task's own, from all outputs of a split at once, in NumPy float64.

Outputs ``[n, classes]`` logits or ``[n]`` scores; targets ``[n]``. GLUE's official pairs: F1 and accuracy (MRPC, QQP),
Pearson's and Spearman's correlation (STS-B), accuracy on matched and mismatched genres (MNLI).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def accuracy(outputs: Array, targets: Array) -> float:
    """The share of samples whose largest output is the label's."""
    return float((outputs.argmax(-1) == targets).mean())


def f1(outputs: Array, targets: Array) -> float:
    """``2 TP / (2 TP + FP + FN)`` of class 1; 0 where nothing is found and nothing true."""
    found, true = outputs.argmax(-1) == 1, targets == 1
    either = int(found.sum()) + int(true.sum())
    return 2 * int((found & true).sum()) / either if either else 0.0


def matthews(outputs: Array, targets: Array) -> float:
    """The correlation of found and true labels."""
    return pearson((outputs.argmax(-1) == 1).astype(np.float64), (targets == 1).astype(np.float64))


def pearson(outputs: Array, targets: Array) -> float:
    """``sum (o - mean o)(y - mean y) / sqrt(sum (o - mean o)^2 sum (y - mean y)^2)``; 0 where one is constant."""
    o, y = (np.asarray(a, np.float64) - np.mean(a, dtype=np.float64) for a in (outputs, targets))
    spread = float(np.sqrt((o @ o) * (y @ y)))
    return float(o @ y) / spread if spread > 0 else 0.0


def spearman(outputs: Array, targets: Array) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of their ranks."""
    return pearson(ranks(outputs), ranks(targets))


def ranks(values: Array) -> npt.NDArray[np.float64]:
    """``[n]``: 1 for the smallest; equal values have the mean of the ranks that they take."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return mean


SCORES: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": accuracy, "f1": f1, "matthews": matthews, "pearson": pearson, "spearman": spearman,
}  # fmt: skip


class Extra(NamedTuple):
    """A metric that is reported at the end of a run.

    Args:
        score: a key of :data:`SCORES`.
        split: the samples, ``(inputs, targets)``; None: the test set.
    """

    score: str
    split: Any = None
