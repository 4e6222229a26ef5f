"""Files that appear whole or not at all, and never in place of another."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from curvebench.errors import StoreError

NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What file systems without hard links (FAT, some network shares) answer to ``link``."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
NO_FOLDER = frozenset({errno.ENOTDIR, errno.EEXIST})


@contextlib.contextmanager
def explained(path: Path, advice: str) -> Iterator[None]:
    """Turn an OSError about ``path`` into a :class:`StoreError` whose sentence ends with ``advice``."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            why = "the disk is full (or over quota): free some space"
        elif error.errno in READ_ONLY:
            why = "no permission to write there (read-only?)"
        elif error.errno in NO_FOLDER:
            why = "a file stands where a folder is needed"
        else:
            why = error.strerror or str(error)
        raise StoreError(f"cannot write {path}: {why}; {advice}") from error


@contextlib.contextmanager
def temporary(folder: Path, name: str, content: bytes) -> Iterator[Path]:
    """A hidden file in ``folder`` with ``content`` on the disk for certain; gone afterwards unless moved."""
    path = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with open(path, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def publish(path: Path, content: bytes) -> bool:
    """Create ``path`` with ``content``, atomically and durably. False, and nothing changed, if the name is taken."""
    with temporary(path.parent, path.name, content) as draft:
        if not place(draft, path):
            return False
    sync_folder(path.parent)
    return True


def overwrite(path: Path, content: bytes) -> None:
    """Create or replace ``path`` with ``content``: readers see the old content or the new, never half of either."""
    with temporary(path.parent, path.name, content) as draft:
        os.replace(draft, path)
    sync_folder(path.parent)


def place(source: Path, target: Path) -> bool:
    """Rename within a file system without ever overwriting. False, and nothing changed, if ``target`` exists."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return place_by_claim(source, target)
    os.unlink(source)
    return True


def place_by_claim(source: Path, target: Path) -> bool:
    """:func:`place` without hard links: whoever creates the claim beside ``target`` may rename onto it.

    The claim of a process that was killed stays, and the name with it: the next free name is then used.
    """
    claim = target.with_name(f".{target.name}.claim")
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    try:
        if target.exists():
            return False
        os.rename(source, target)
        return True
    finally:
        os.unlink(claim)


def sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut, where the system can (Windows and some shares cannot open folders)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
