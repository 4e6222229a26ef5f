"""GLUE's labelled parts, read by the rules that its files follow and none of them states.

Tab-separated without quoting (quotation marks are text), UTF-8, MRPC's source texts with a byte-order mark; lines end
at a line feed and at nothing else (sentences hold other Unicode line ends). CoLA has no header, every other file one.
A row with too few columns is skipped, as the usual readers do; the card's splits fix how many rows must remain.
Test parts carry no labels and are not read, except MRPC's source text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.data import roots
from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard


class Sentences(NamedTuple):
    """One part: texts without spaces at their ends, and classes or scores."""

    first: list[str]  # [n]
    second: list[str] | None  # [n], None where the task is about one sentence
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float64]  # [n] classes from 0, or scores in [0, 5] (STS-B)


class Glue(NamedTuple):
    """The labelled parts of one task."""

    train: Sentences
    validation: Sentences
    mismatched: Sentences | None  # MNLI's second validation part, of other genres
    test: Sentences | None  # MRPC alone
    classes: tuple[str, ...]  # empty: a regression


class Layout(NamedTuple):
    """Where in a row the texts and the label stand."""

    folder: str
    first: int
    second: int | None
    label: int
    classes: tuple[str, ...]
    header: bool = True


LAYOUTS = {
    "cola": Layout("CoLA", 3, None, 1, ("0", "1"), header=False),
    "sst2": Layout("SST-2", 0, None, 1, ("0", "1")),
    "mrpc": Layout("MRPC", 3, 4, 0, ("0", "1")),
    "stsb": Layout("STS-B", 7, 8, 9, ()),
    "qqp": Layout("QQP", 3, 4, 5, ("0", "1")),
    "mnli": Layout("MNLI", 8, 9, -1, ("entailment", "neutral", "contradiction")),
    "qnli": Layout("QNLI", 1, 2, 3, ("entailment", "not_entailment")),
    "rte": Layout("RTE", 1, 2, 3, ("entailment", "not_entailment")),
    "wnli": Layout("WNLI", 1, 2, 3, ("0", "1")),
}


def load_glue(folder: Path | None = None, *, card: DatasetCard) -> Glue:
    """Check the files against the card and read them.

    Args:
        folder: holds ``SST-2/train.tsv`` and so on; default: where the data set is found.
        card: which of GLUE's tasks; its splits fix the number of rows.

    Raises:
        DataError: a file is missing, truncated, not the official one, or its rows are not the task's.
    """
    layout = LAYOUTS[card.name]
    folder = folder or roots.locate(card)
    chosen = roots.verify(card, folder)
    if chosen == "dev":
        raise DataError(f"{card.name}: {folder / layout.folder}/train.tsv is missing; {roots.mend(card)}")
    place, mend = folder / layout.folder, roots.mend(card)
    mismatched = test = None
    if card.name == "mrpc":
        train, validation = _cut(place, layout, mend)
        test = _part(place / "msr_paraphrase_test.txt", layout, mend)
    elif card.name == "mnli":
        train = _part(place / "train.tsv", layout, mend)
        validation = _part(place / "dev_matched.tsv", layout, mend)
        mismatched = _part(place / "dev_mismatched.tsv", layout, mend)
    else:
        train, validation = (_part(place / f"{part}.tsv", layout, mend) for part in ("train", "dev"))
    parts = {"train": train, "validation": validation, "test": test}
    for name, wanted in card.splits.items():
        part = parts[name]
        if part is None or len(part.labels) != wanted:
            found = 0 if part is None else len(part.labels)
            raise DataError(f"{card.name}: {place} has {found:,} {name} rows, expected {wanted:,}; {mend}")
    return Glue(train, validation, mismatched, test, layout.classes)


def read_rows(path: Path, *, header: bool, mend: str) -> list[list[str]]:
    """The cells of a file's rows, header left out; tabs separate, nothing quotes.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # the mark, where there is one, is not text
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); {mend}") from error
    lines = [line.rstrip("\r") for line in text.split("\n")]
    return [line.split("\t") for line in lines[1 if header else 0 :] if line]


def _part(path: Path, layout: Layout, mend: str) -> Sentences:
    return _sentences(read_rows(path, header=layout.header, mend=mend), layout, path, mend)


def _cut(place: Path, layout: Layout, mend: str) -> tuple[Sentences, Sentences]:
    """MRPC's training text in two by the pairs of identifiers in ``dev_ids.tsv``."""
    path = place / "msr_paraphrase_train.txt"
    rows = read_rows(path, header=True, mend=mend)
    held = {tuple(row[:2]) for row in read_rows(place / "dev_ids.tsv", header=False, mend=mend)}
    inside = [row for row in rows if tuple(row[1:3]) in held]
    outside = [row for row in rows if tuple(row[1:3]) not in held]
    return _sentences(outside, layout, path, mend), _sentences(inside, layout, path, mend)


def _sentences(rows: list[list[str]], layout: Layout, path: Path, mend: str) -> Sentences:
    columns = [c for c in (layout.first, layout.second, layout.label) if c is not None]
    rows = [row for row in rows if len(row) > max(columns)]
    words = [row[layout.label].strip() for row in rows]
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    try:
        if layout.classes:
            index = {word: number for number, word in enumerate(layout.classes)}
            labels = np.array([index[word] for word in words], dtype=np.int64)
        else:
            labels = np.array([float(word) for word in words], dtype=np.float64)
    except (KeyError, ValueError) as error:
        known = ", ".join(layout.classes) or "a number"
        raise DataError(f"{path}: label {error.args[0]!r} must be {known}; {mend}") from error
    second = None if layout.second is None else [row[layout.second].strip() for row in rows]
    return Sentences([row[layout.first].strip() for row in rows], second, labels)
