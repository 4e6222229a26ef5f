"""The WordPiece vocabulary of BERT: 30,522 tokens, one a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from curvebench import cards
from curvebench.data import roots
from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard


class Vocabulary(NamedTuple):
    """Tokens by number, and where the file lies."""

    tokens: tuple[str, ...]
    path: Path


SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}


def load_vocabulary(folder: Path | None = None, *, card: DatasetCard | None = None) -> Vocabulary:
    """Check the file against the card and read it.

    Args:
        folder: holds ``bert-base-uncased/vocab.txt``; default: where the data set is found.
        card: default ``datasets/bert-vocabulary.toml``.

    Raises:
        DataError: the file is missing, truncated, not the card's, or its special tokens are not where BERT has them.
    """
    card = card or cards.dataset("bert-vocabulary")
    folder = folder or roots.locate(card)
    roots.verify(card, folder)
    path = folder / card.files[0].path
    tokens = tuple(path.read_bytes().decode("utf-8").rstrip("\n").split("\n"))
    moved = [token for token, number in SPECIAL.items() if len(tokens) <= number or tokens[number] != token]
    if moved or len(tokens) != card.splits["train"]:
        raise DataError(f"{path}: {len(tokens):,} tokens, misplaced {moved}: not BERT's vocabulary; {roots.mend(card)}")
    return Vocabulary(tokens, path)
