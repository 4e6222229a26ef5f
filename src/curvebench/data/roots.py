"""Where data lies: ``$CURVEBENCH_DATA``, then the user's cache folder; in both, ``<root>/<card.folder>/<file>``.

A card may name its files in several layouts (CIFAR-10: Python batches or binary ones). A folder holds the data set when
it holds every file of one layout; the card's first layout is preferred.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from curvebench.data.checksums import cache, check_files
from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetCard, DatasetFile

VARIABLE = "CURVEBENCH_DATA"


def roots() -> list[Path]:
    """The folders that are searched, first to last.

    Raises:
        DataError: ``$CURVEBENCH_DATA`` is set and is not a folder.
    """
    given = os.environ.get(VARIABLE)
    standard = cache() / "data"
    if not given:
        return [standard]
    root = Path(given).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"{VARIABLE}={given} is not a folder: create it, or unset {VARIABLE} to use {standard}")
    return [root, standard]


def layouts(card: DatasetCard) -> dict[str, tuple[DatasetFile, ...]]:
    """The card's files by layout, in the card's order; a file without a layout belongs to every layout."""
    names = list(dict.fromkeys(file.layout for file in card.files if file.layout)) or [""]
    return {name: tuple(file for file in card.files if file.layout in (None, name)) for name in names}


def layout_in(card: DatasetCard, folder: Path) -> str:
    """The name of the first layout of which every file is in ``folder``; ``""`` if the card has only one.

    Raises:
        DataError: no layout is whole there; names the first missing file.
    """
    missing: dict[str, list[str]] = {}
    for name, files in layouts(card).items():
        missing[name] = [file.path for file in files if not _there(folder / file.path)]
        if not missing[name]:
            return name
    nearest = min(missing, key=lambda name: len(missing[name]))
    absent = missing[nearest]
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    verb = "are" if more else "is"
    raise DataError(f"{card.name}: {folder / absent[0]}{more} {verb} missing; {mend(card)}")


def locate(card: DatasetCard) -> Path:
    """Find the folder that holds every file of one layout of the card.

    Presence only: :func:`verify` checks the content. A root that holds a part of the data set is reported, not skipped.

    Raises:
        DataError: not found; says what is missing and which command mends it.
    """
    _only_files(card)
    candidates = [root / card.folder for root in roots()]
    for folder in candidates:
        if any(_there(folder / file.path) for file in card.files):
            layout_in(card, folder)
            return folder
    where = " and ".join(map(str, candidates))
    raise DataError(f"{card.name} is not on this machine (looked in {where}); {mend(card)}")


def verify(card: DatasetCard, folder: Path, *, stamps: bool = True) -> str:
    """Check the files of the layout in ``folder`` against the card's sizes and checksums.

    Args:
        card: says which files, bytes and checksums.
        folder: from :func:`locate`.
        stamps: False hashes every file even if it has not changed since it was last hashed.

    Returns:
        The layout that was checked.

    Raises:
        DataError: a file is missing, truncated, too long or not the official one.
    """
    name = layout_in(card, folder)
    check_files(card.name, folder, layouts(card)[name], mend(card), stamps=stamps)
    return name


def status(card: DatasetCard) -> tuple[str, str]:
    """Whether the data set can be used here.

    Returns:
        ``(word, sentence)``; the word is ``present``, ``absent``, ``corrupt`` or ``embedded`` (comes with a package).
    """
    if card.source == "generated":
        return "embedded", "generated on the spot, needs no files"
    if card.source == "scikit-learn":
        if importlib.util.find_spec("sklearn"):
            return "embedded", "comes with scikit-learn"
        return "absent", "comes with scikit-learn: pip install 'curvebench[data]'"
    try:
        found = [root / card.folder for root in roots()]
        if not any(_there(folder / file.path) for folder in found for file in card.files):
            return "absent", mend(card)
    except DataError as error:
        return "absent", str(error)
    try:
        folder = locate(card)
        verify(card, folder)
    except DataError as error:
        return "corrupt", str(error)
    return "present", f"{folder}, checksums match"


def mend(card: DatasetCard) -> str:
    """What to do about a missing or wrong file, as the end of a sentence."""
    files = next(iter(layouts(card).values()))
    fellows = " and its fellows lie" if len(files) > 1 else " lies"
    place = f"set {VARIABLE}=/path/to/folder in which {card.folder}/{files[0].path}{fellows}"
    if not card.archives and any(file.url is None and file.status != "official" for file in files):
        return f"it has no official address, its card says how it was made: {place}"
    return f"run `curvebench data fetch {card.name}`, or {place}"


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a folder above it may not be entered
        raise DataError(f"{path} cannot be read ({error.strerror or error}): it needs other rights") from error


def _only_files(card: DatasetCard) -> None:
    if card.source != "download":
        raise DataError(f"{card.name} has no files of its own ({status(card)[1]})")
