"""MNIST in memory, once, as uint8, from the official gzipped IDX files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.data import roots
from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard

UNSIGNED_BYTE = 8
"""IDX's code of the only type that MNIST uses."""


class Mnist(NamedTuple):
    """Grey images, row-major, 0 is background; labels are the digits."""

    train_images: npt.NDArray[np.uint8]  # [60000, 28, 28]
    train_labels: npt.NDArray[np.int64]  # [60000]
    test_images: npt.NDArray[np.uint8]  # [10000, 28, 28]
    test_labels: npt.NDArray[np.int64]  # [10000]


def load_mnist(folder: Path | None = None, *, card: DatasetCard | None = None) -> Mnist:
    """Check the files against the card and read them.

    Args:
        folder: holds ``train-images-idx3-ubyte.gz`` and its fellows; default: where the data set is found.
        card: default ``datasets/mnist.toml``; its splits fix the number of images.

    Raises:
        DataError: a file is missing, truncated, not the official one, or no IDX file of MNIST.
    """
    card = card or cards.dataset("mnist")
    folder = folder or roots.locate(card)
    roots.verify(card, folder)
    mend = roots.mend(card)
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[npt.NDArray[np.int64]] = []
    for part, total in (("train", card.splits["train"] + card.splits["validation"]), ("t10k", card.splits["test"])):
        images.append(read_idx(folder / f"{part}-images-idx3-ubyte.gz", (total, 28, 28), mend))
        found = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", (total,), mend)
        if found.max() > 9:
            raise DataError(f"{folder}: a label is {found.max()}, must lie in 0..9; {mend}")
        labels.append(found.astype(np.int64))
    return Mnist(images[0], labels[0], images[1], labels[1])


def read_idx(path: Path, shape: tuple[int, ...], mend: str) -> npt.NDArray[np.uint8]:
    """An IDX file of unsigned bytes: two zeros, type, rank, the lengths as big-endian integers, then the bytes.

    No more bytes are unpacked than the shape needs, so a bomb costs nothing.

    Raises:
        DataError: another type, rank or shape, too few or too many bytes, or a damaged gzip stream.
    """
    head = 4 + 4 * len(shape)
    size = int(np.prod(shape))
    try:
        with gzip.open(path) as stream:
            content = stream.read(head + size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}); {mend}") from error
    lengths = tuple(int(n) for n in np.frombuffer(content[4:head], dtype=">u4")) if len(content) >= head else ()
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, len(shape)]) or lengths != shape or len(content) != head + size:
        raise DataError(f"{path}: not an IDX file of unsigned bytes of shape {shape}; {mend}")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape).copy()
