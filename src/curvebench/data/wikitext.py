"""Plain text: WikiText-2, from its archive or from its files, and Tiny Shakespeare."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from curvebench import cards
from curvebench.data import roots
from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard

LARGEST = 64 * 2**20
"""Bytes that a member of the archive may unpack to; the training part has a sixth of it."""


class Text(NamedTuple):
    """The parts as text, and whether the training part is the official one."""

    train: str
    validation: str
    test: str
    whole: bool  # False: there is no training part here, ``train`` is the official validation part, the others the test


def load_wikitext2(folder: Path | None = None, *, card: DatasetCard | None = None) -> Text:
    """Check the files against the card and read them.

    Where only the validation and the test part are, they stand in as training and as validation and test, ``whole`` is
    False, and who trains on it says so.

    Args:
        folder: holds ``wikitext-2-v1.zip`` or ``wikitext-2/wiki.valid.tokens``; default: where the data set is found.
        card: default ``datasets/wikitext-2.toml``; its splits fix the number of lines.

    Raises:
        DataError: a file is missing, truncated, not the card's, or has another number of lines.
    """
    card = card or cards.dataset("wikitext-2")
    folder = folder or roots.locate(card)
    layout = roots.verify(card, folder)
    mend = roots.mend(card)
    names = {"train": "wiki.train.tokens", "validation": "wiki.valid.tokens", "test": "wiki.test.tokens"}
    if layout == "archive":
        parts = _from_archive(folder / "wikitext-2-v1.zip", names, mend)
    else:
        there = {part: name for part, name in names.items() if part != "train"}
        parts = {part: _decode((folder / "wikitext-2" / name).read_bytes(), name, mend) for part, name in there.items()}
    for part, text in parts.items():
        if (found := text.count("\n")) != card.splits[part]:  # type: ignore[index]  # the parts' names are the splits'
            raise DataError(f"{card.name}: {names[part]} has {found:,} lines, expected {card.splits[part]:,}; {mend}")  # type: ignore[index]
    if layout == "archive":
        return Text(parts["train"], parts["validation"], parts["test"], whole=True)
    return Text(parts["validation"], parts["test"], parts["test"], whole=False)


def load_shakespeare(folder: Path | None = None, *, card: DatasetCard | None = None) -> str:
    """Tiny Shakespeare as one string.

    Args:
        folder: holds ``tinyshakespeare/input.txt``; default: where the data set is found.
        card: default ``datasets/tiny-shakespeare.toml``.

    Raises:
        DataError: the file is missing, truncated or not the card's.
    """
    card = card or cards.dataset("tiny-shakespeare")
    folder = folder or roots.locate(card)
    roots.verify(card, folder)
    return _decode((folder / card.files[0].path).read_bytes(), card.files[0].path, roots.mend(card))


def _from_archive(path: Path, names: dict[str, str], mend: str) -> dict[str, str]:
    """Read the three members straight from the verified archive; nothing is written."""
    parts = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for part, name in names.items():
                with archive.open(f"wikitext-2/{name}") as member:
                    content = member.read(LARGEST + 1)
                if len(content) > LARGEST:
                    raise DataError(f"{path}: {name} has more than {LARGEST:,} bytes; {mend}")
                parts[part] = _decode(content, name, mend)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is not WikiText-2's archive ({error}); {mend}") from error
    return parts


def _decode(content: bytes, name: str, mend: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 ({error.reason} at byte {error.start}); {mend}") from error
