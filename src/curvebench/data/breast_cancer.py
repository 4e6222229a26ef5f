"""Wisconsin diagnostic breast cancer: 569 tumours, 30 features, two classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.data import scikit_learn

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard


class BreastCancer(NamedTuple):
    """Raw features (scales differ by 10^5) and signed classes."""

    features: npt.NDArray[np.float64]  # [569, 30], as measured
    labels: npt.NDArray[np.float64]  # [569], -1 malignant (212), +1 benign (357)


def load_breast_cancer(folder: Path | None = None, *, card: DatasetCard | None = None) -> BreastCancer:
    """Read the table; scikit-learn's classes 0 (malignant) and 1 (benign) become -1 and +1.

    Args:
        folder: ignored; the data come with scikit-learn.
        card: default ``datasets/breast-cancer.toml``.

    Raises:
        MissingPackageError: scikit-learn is not installed.
        DataError: scikit-learn's file is not the one that the card fixes.
    """
    card = card or cards.dataset("breast-cancer")
    features, labels = scikit_learn.table(card, "breast_cancer.csv", header=1)
    return BreastCancer(features, (2 * labels - 1).astype(np.float64))
