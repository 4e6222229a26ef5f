"""WordPiece numbers of sentences by ``tokenizers``, cached by content.

A cache file is named by the hash of everything that decides its content (checksums of texts and vocabulary, length,
version of the tokeniser), is written atomically, and carries its own sha256: a damaged one is made again.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.data.checksums import cache
from curvebench.errors import MissingPackageError
from curvebench.spec import digest

LAYOUT = 1
"""Raise it when what a cache file holds changes."""
DIGEST = 32
"""Bytes of the checksum at the end."""


def encode(vocabulary: Path, first: Sequence[str], second: Sequence[str] | None, length: int) -> npt.NDArray[np.uint16]:
    """``[n, 2, longest]``: numbers ``[CLS] first [SEP] (second [SEP])`` filled up with 0, and segments 0 and 1.

    Lower-cased, accents stripped; the longer of a pair is cut until both fit into ``length``; ``longest`` is the
    longest that remains.

    Raises:
        MissingPackageError: tokenizers is not installed.
        ValueError: length does not lie in [8, 512].
    """
    if not 8 <= length <= 512:
        raise ValueError(f"length = {length}: must lie in [8, 512]")
    tokeniser = _tokeniser(vocabulary)
    tokeniser.enable_truncation(length, strategy="longest_first")
    texts = list(first) if second is None else list(zip(first, second, strict=True))
    found = tokeniser.encode_batch(texts)
    longest = max(len(one.ids) for one in found)
    out = np.zeros((len(found), 2, longest), dtype=np.uint16)
    for row, one in zip(out, found, strict=True):
        row[0, : len(one.ids)] = one.ids
        row[1, : len(one.ids)] = one.type_ids
    return out


def pieces(vocabulary: Path, lines: Sequence[str]) -> npt.NDArray[np.uint16]:
    """The numbers of all lines in one row, without [CLS] and [SEP]; ``<unk>``, as WikiText writes it, is [UNK].

    Raises:
        MissingPackageError: tokenizers is not installed.
    """
    texts = [line.replace("<unk>", "[UNK]") for line in lines if line.strip()]
    found = _tokeniser(vocabulary).encode_batch(texts, add_special_tokens=False)
    return np.concatenate([np.array(one.ids, dtype=np.uint16) for one in found])


def _tokeniser(vocabulary: Path) -> Any:
    try:
        from tokenizers import implementations
    except ImportError as error:
        raise MissingPackageError("tokenizers", "bert", "reading sentences") from error
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would not survive a fork
    library: Any = implementations  # it exports the class, but not by the letter of its annotations
    return library.BertWordPieceTokenizer(str(vocabulary), lowercase=True)


def cached(key: object, make: Callable[[], tuple[npt.NDArray[np.generic], ...]]) -> tuple[npt.NDArray[np.generic], ...]:
    """The arrays of ``make()``, from the cache where they are there and whole.

    Args:
        key: JSON content of everything that decides the arrays.
        make: called when there is no file, or a damaged one.
    """
    name = digest({"layout": LAYOUT, "tokenizers": _version(), "key": key})
    path = cache() / "tokens" / f"{name[:32]}.npy"
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if content:
        body, seal = memoryview(content)[:-DIGEST], content[-DIGEST:]
        if hashlib.sha256(body).digest() == seal:
            return _unpack(body)
        warnings.warn(f"{path} is damaged and is made again", stacklevel=2)
    arrays = make()
    _write(path, arrays)
    return arrays


def _unpack(body: memoryview) -> tuple[npt.NDArray[np.generic], ...]:
    stream, arrays = io.BytesIO(body), []
    while stream.tell() < len(body):
        arrays.append(np.load(stream, allow_pickle=False))
    return tuple(arrays)


def _write(path: Path, arrays: tuple[npt.NDArray[np.generic], ...]) -> None:
    """A cache that cannot be written is no reason to stop."""
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array, allow_pickle=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tokens-")
        try:
            with os.fdopen(handle, "wb") as sink:
                sink.write(stream.getbuffer())
                sink.write(hashlib.sha256(stream.getbuffer()).digest())
            os.replace(name, path)
        except OSError:
            os.unlink(name)
    except OSError:
        return


def _version() -> str:
    try:
        return version("tokenizers")
    except PackageNotFoundError:
        return "absent"
