"""Bring a data set here: download, checksum, unpack, checksum again, and only then move each file into its place."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from curvebench.data import roots
from curvebench.data.archives import unpack
from curvebench.data.checksums import check_files
from curvebench.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from curvebench.cards import Archive, DatasetCard, DatasetFile

SLACK = 16 * 2**20
"""Bytes that an archive may unpack to beyond the files that the card names (read-mes, class names)."""
UNKNOWN = 2**30
"""Bytes that a file whose size nobody publishes may unpack to."""
TRIES = 3
"""Attempts at one address, as long as each brings more bytes than the one before."""


def fetch(card: DatasetCard, *, root: Path | None = None, layout: str | None = None) -> Path:
    """Make the data set present and verified; nothing is downloaded if it already is.

    An archive that lies beside its data (``<root>/<card.folder>/<archive.name>``) is used instead of the network, which
    is the way in for machines without one.

    Args:
        card: says which archives and files.
        root: where to put it; default ``$CURVEBENCH_DATA``, else the user's cache folder.
        layout: one of the card's layouts; default its first.

    Returns:
        The folder that holds the files.

    Raises:
        DataError: no address answers, wrong checksum, hostile archive, folder not writable, disk full; says what to do.
    """
    choices = roots.layouts(card)
    if card.source != "download":
        raise DataError(f"{card.name}: nothing to download ({roots.status(card)[1]})")
    name = next(iter(choices)) if layout is None else layout
    if name not in choices:
        raise DataError(f"{card.name} has no layout {name!r}{did_you_mean(name, choices)}")
    folder = (root or roots.roots()[0]).expanduser().absolute() / card.folder
    files = choices[name]
    archives = [archive for archive in card.archives if archive.layout in (None, name)]
    alone = [file for file in files if file.url is not None]
    if not archives and len(alone) < len(files):
        lone = next(file for file in files if file.url is None)
        raise DataError(
            f"{card.name}: nothing to download: {lone.path} has no official address, its card says how it was made; "
            f"put it at {folder / lone.path}"
        )
    with contextlib.suppress(DataError):
        check_files(card.name, folder, files, roots.mend(card))
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        needed = sum(f.bytes or 0 for f in files) + sum(archive.bytes for archive in archives)
        if (left := shutil.disk_usage(folder).free) < needed:
            raise OSError(errno.ENOSPC, f"{left:,} bytes are free, {needed:,} are needed")
        with _alone(card, folder), tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as staging:
            for archive in archives:
                path, kept = _obtain(card, archive, folder)
                limit = sum(f.bytes or UNKNOWN for f in files) + SLACK
                unpack(path, Path(staging), [f.path for f in files], limit)
                if not kept:
                    path.unlink()
            mend = "the archive has its official checksum, so the card is wrong about this file: please report it"
            packed = [file for file in files if file.url is None]
            check_files(card.name, Path(staging), packed, mend, stamps=False)
            for file in alone:
                _obtain(card, _as_download(file), folder)
            for file in packed:
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(staging) / file.path, folder / file.path)
    except OSError as error:
        raise DataError(
            f"{card.name}: cannot write to {folder} ({error.strerror or error}): make room or rights there, "
            f"or set {roots.VARIABLE} to another folder"
        ) from error
    return folder


def _as_download(file: DatasetFile) -> Archive:
    """A file that comes alone is downloaded as an archive is, and not unpacked."""
    from curvebench.cards import Archive

    assert file.url is not None, "only files with an address come here"
    assert file.bytes is not None, "the card's parser refuses a url without a size"
    return Archive(url=file.url, name=file.path, bytes=file.bytes, md5=file.md5, sha256=file.sha256)


def _obtain(card: DatasetCard, archive: Archive, folder: Path) -> tuple[Path, bool]:
    """The verified archive, and whether it was there before; its addresses are tried in order."""
    import pooch  # with requests a quarter of a second, which only a download should pay
    import pooch.hashes

    from curvebench.data.download import Resuming, bar

    pooch.get_logger().setLevel(logging.WARNING)  # it announces each file on stderr, where our bar is
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    algorithm, checksum = ("sha256", archive.sha256) if archive.sha256 else ("md5", archive.md5)
    known = f"{algorithm}:{checksum}"
    faults = []
    if path.is_file():
        if pooch.hashes.hash_matches(str(path), known):
            return path, True
        faults.append(f"{path}: its {algorithm} is not {checksum}")
    for url in (archive.url, *archive.mirrors):
        for _ in range(TRIES):
            before = part.stat().st_size if part.exists() else 0
            try:
                with bar(archive.name, archive.bytes, sys.stderr) as advance:
                    downloader = Resuming(part, archive.bytes, advance)
                    pooch.retrieve(url, known, fname=path.name, path=path.parent, downloader=downloader)
                return path, False
            except Resuming.FAULTS as error:
                fault = _innermost(error)
                if not part.exists() or part.stat().st_size <= before:
                    break  # no progress: the next address
            except ValueError:  # pooch found another checksum, and has removed the file
                fault = f"its {algorithm} is not {checksum}"
                if not before:
                    break  # the whole file came from here; otherwise the part may have been the wrong one
        faults.append(f"{url}: {fault}")
    raise DataError(
        f"{card.name}: could not be downloaded ({'; '.join(faults)}): get {archive.name} ({archive.bytes:,} bytes, "
        f"{algorithm} {checksum}) from {archive.url} on another machine, put it at {path} "
        f"and run `curvebench data fetch {card.name}` again, "
        f"or set {roots.VARIABLE}=/path/to/folder in which {card.folder}/ holds its unpacked files"
    )


def _innermost(error: BaseException) -> str:
    """The reason a person can act on: "Connection refused", not the pool, the retries and the objects around it."""
    reason = error
    while True:
        inner = [getattr(reason, "reason", None), *reason.args]
        found = next((x for x in inner if isinstance(x, Exception)), None)
        if found is None:
            return str(reason).rpartition("): ")[2] or type(reason).__name__
        reason = found


@contextlib.contextmanager
def _alone(card: DatasetCard, folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two downloads into one partial file would spoil it."""
    with (folder / ".fetch.lock").open("w") as lock:
        try:
            import fcntl
        except ImportError:  # Windows: without a lock the checksum still refuses what two writers mixed
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{card.name}: another curvebench is fetching into {folder}: wait for it") from None
        yield
