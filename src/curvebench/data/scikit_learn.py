"""Tables that ship inside scikit-learn, read without importing it: the import takes 1.5 s, the file 0.03 s.

What the card fixes is the content: sha256 of the parsed array's bytes (little-endian, C order), which holds across
recompressed files, line ends and whichever way they were read.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench.data.checksums import check_bytes
from curvebench.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard


def table(
    card: DatasetCard, file: str, *, header: int, targets: str | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Read a table whose last column is the class, and check it against the card before anybody sees it.

    Args:
        card: its files ``features`` (float64) and ``labels`` (int64) fix sizes and checksums.
        file: name in scikit-learn's ``datasets/data`` folder, ``.csv`` or ``.csv.gz``.
        header: lines before the first row.
        targets: a second file that holds the last column alone, of whole numbers.

    Returns:
        Features [n, d] and labels [n].

    Raises:
        MissingPackageError: scikit-learn is not installed.
        DataError: the content is not the one that the card fixes.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise MissingPackageError("scikit-learn", "data", f"the data set {card.name}")
    path = Path(spec.origin).parent / "datasets" / "data" / file
    second = None if targets is None else path.with_name(targets)
    mend = "run `pip install --force-reinstall scikit-learn`"
    try:
        features, labels = _parse(path, header, second) if path.is_file() else _ask(card.name)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{card.name}: {path} cannot be read ({error}); {mend}") from error
    contents = {"features": features.astype("<f8").tobytes(), "labels": labels.astype("<i8").tobytes()}
    for entry in card.files:
        if entry.path not in contents:
            raise DataError(f"{card.name}: the card lists {entry.path!r}; scikit-learn's tables have features, labels")
        check_bytes(card.name, f"{entry.path} read from {path}", contents.pop(entry.path), entry, mend)
    if contents:
        raise DataError(f"{card.name}: the card has no checksum of {' and '.join(contents)}")
    return features, labels


def _parse(path: Path, header: int, second: Path | None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    if second is not None:  # scikit-learn separates these two by spaces
        return np.loadtxt(path, dtype=np.float64, ndmin=2), np.loadtxt(second, dtype=np.float64).astype(np.int64)
    rows = np.loadtxt(path, delimiter=",", skiprows=header, dtype=np.float64, ndmin=2)
    return np.ascontiguousarray(rows[:, :-1]), rows[:, -1].astype(np.int64)


def _ask(name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Where scikit-learn has moved its file, its public function knows."""
    sets: Any = importlib.import_module("sklearn.datasets")
    how = {"scaled": False} if name == "diabetes" else {}
    features, labels = getattr(sets, f"load_{name.replace('-', '_')}")(return_X_y=True, **how)
    return np.ascontiguousarray(features, dtype=np.float64), np.asarray(labels, dtype=np.int64)
