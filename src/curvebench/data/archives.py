"""Unpack what the card names from an archive, and refuse an archive that tries anything else."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterable
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath

from curvebench.errors import DataError

MEMBERS = 10_000
"""More members than any data set here has; an archive with more is not one of them."""


def unpack(archive: Path, into: Path, wanted: Iterable[str], limit: int) -> None:
    """Copy the wanted regular files of a tar archive below ``into``; contents only, no owner, no mode, no links.

    Every member is judged, wanted or not, since an archive with one hostile member is not the official one.

    Args:
        archive: a tar file, compressed or not, whose checksum was verified.
        into: an existing folder.
        wanted: relative paths with forward slashes; others are skipped.
        limit: bytes that all members together may hold.

    Raises:
        DataError: a link, a device, an absolute path, ``..``, too many members or bytes, a damaged archive; names the
            member. What was written before stays in ``into``, which the caller discards.
    """
    names = set(wanted)
    total = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for count, member in enumerate(tar, start=1):
                total += max(member.size, 0)
                _judge(archive, into, member)
                if count > MEMBERS or total > limit:
                    raise DataError(
                        f"{archive}: member {member.name!r} makes {count:,} members and {total:,} bytes, allowed are "
                        f"{MEMBERS:,} and {limit:,}: not unpacked"
                    )
                name = str(PurePosixPath(member.name))
                if not member.isreg() or name not in names:
                    continue
                source = tar.extractfile(member)
                assert source is not None, "a regular file has content"
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, LZMAError) as error:
        why = str(error).partition(":\n")[0]  # tarfile lists what every decompressor thought, a line each
        raise DataError(f"{archive} is not a whole tar archive ({why}): delete it and fetch it again") from error


def _judge(archive: Path, into: Path, member: tarfile.TarInfo) -> None:
    posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    if posix.is_absolute() or windows.drive or windows.root:
        fault = "has an absolute path"
    elif ".." in posix.parts or ".." in windows.parts:
        fault = "points outside its folder"
    elif member.issym() or member.islnk():
        fault = f"is a link to {member.linkname!r}"
    elif not (member.isreg() or member.isdir()):
        fault = "is neither a file nor a folder"
    else:
        # Python's own filter as a second opinion; absent before 3.11.4.
        if hasattr(tarfile, "data_filter"):
            try:
                tarfile.data_filter(member, str(into))
            except tarfile.FilterError as error:
                raise DataError(f"{archive}: member {member.name!r} is refused ({error}): not unpacked") from error
        return
    raise DataError(f"{archive}: member {member.name!r} {fault}: not unpacked")
