"""Checksums before anything reads a data file, and stamps that spare an unchanged file its second hashing.

A stamp says "this file, with this size, these times and this inode, had the card's checksum". It lives in the user's
cache folder, never beside the data (which may be read-only), and losing it costs one hashing: 0.8 s for CIFAR-10.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import platformdirs

from curvebench.errors import DataError

if TYPE_CHECKING:
    from curvebench.cards import DatasetFile

Stamp: TypeAlias = list[int]
"""Size in bytes, mtime and ctime in nanoseconds, inode."""

SETTLED = 2 * 10**9
"""A file written less than this many nanoseconds ago gets no stamp: file systems with coarse times (FAT has 2 s) could
hide a second write behind the same mtime, the "racily clean" problem of git's index."""


def cache() -> Path:
    """The folder that curvebench may fill and anyone may delete."""
    return platformdirs.user_cache_path("curvebench")


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of the bytes of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def expected(file: DatasetFile) -> tuple[str, str]:
    """Return ``(algorithm, hex digest)`` of a card's file: sha256 where the card has it, else the official md5."""
    if file.sha256:
        return "sha256", file.sha256
    assert file.md5, "the card's parser refuses a file without a checksum"
    return "md5", file.md5


def check_bytes(owner: str, what: str, content: bytes, file: DatasetFile, mend: str) -> None:
    """Compare bytes in memory with the card.

    Raises:
        DataError: another size or checksum.
    """
    algorithm, want = expected(file)
    found = hashlib.new(algorithm, content).hexdigest()
    if file.bytes not in (None, len(content)) or found != want:
        size = "" if file.bytes is None else f"{file.bytes:,} bytes and "
        raise DataError(
            f"{owner}: {what} has {len(content):,} bytes and {algorithm} {found}, expected {size}"
            f"{want}: it is not the official content; {mend}"
        )


def check_files(owner: str, folder: Path, files: Iterable[DatasetFile], mend: str, *, stamps: bool = True) -> int:
    """Check every file's presence, size and checksum, in this order, before anything reads it.

    Args:
        owner: name of the data set, for messages.
        folder: where the paths of ``files`` start.
        files: what must be there.
        mend: the end of every message: which command mends it.
        stamps: False hashes every file even if it has not changed since it was last hashed.

    Returns:
        How many files were hashed (the others had a valid stamp).

    Raises:
        DataError: the first file that is missing, unreadable, truncated, too long or not the official one.
    """
    files = tuple(files)
    known = _read_stamps(folder) if stamps else {}
    fresh: dict[str, Stamp] = {}
    hashed = 0
    for file in files:
        path = folder / file.path
        algorithm, want = expected(file)
        key = f"{file.path}:{want}"
        try:
            stamp = _stamp(path)
            if file.bytes is not None and stamp[0] != file.bytes:
                how = "truncated" if stamp[0] < file.bytes else "too long"
                raise DataError(f"{owner}: {path} has {stamp[0]:,} bytes, expected {file.bytes:,} ({how}); {mend}")
            if known.get(key) != stamp:
                hashed += 1
                if (found := digest(path, algorithm)) != want:
                    named = {"official": "the official file", "copy": "the copy that the card fixes"}
                    raise DataError(
                        f"{owner}: {path} has {algorithm} {found}, expected {want}: it is not "
                        f"{named.get(file.status, 'the derived file that the card fixes')}; {mend}"
                    )
                if time.time_ns() - max(stamp[1], stamp[2]) < SETTLED:
                    continue
        except FileNotFoundError:
            raise DataError(f"{owner}: {path} is missing; {mend}") from None
        except OSError as error:
            raise DataError(f"{owner}: {path} cannot be read ({error.strerror or error}); {mend}") from error
        fresh[key] = stamp
    if hashed and fresh:
        _write_stamps(folder, fresh)
    return hashed


def _stamp(path: Path) -> Stamp:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _stamp_file(folder: Path) -> Path:
    return cache() / "verified" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}.json"


def _read_stamps(folder: Path) -> dict[str, Stamp]:
    try:
        content = json.loads(_stamp_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent or damaged: hash again
        return {}
    return content if isinstance(content, dict) else {}


def _write_stamps(folder: Path, fresh: dict[str, Stamp]) -> None:
    """Add stamps atomically; a cache that cannot be written is no reason to stop."""
    target = _stamp_file(folder)
    content = {**_read_stamps(folder), **fresh}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".stamp-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            os.replace(name, target)
        except OSError:
            os.unlink(name)
    except OSError:
        return
