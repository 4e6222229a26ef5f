"""Unpack what the card names from an archive, and refuse an archive that tries anything else."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath

from curvebench.errors import DataError

MEMBERS = 10_000
"""More members than any data set here has; an archive with more is not one of them."""


def unpack(archive: Path, into: Path, wanted: Iterable[str], limit: int) -> None:
    """Copy the wanted regular files of a tar or zip archive below ``into``; contents only, no owner, no mode, no links.

    Every member is judged, wanted or not, since an archive with one hostile member is not the official one.

    Args:
        archive: a tar file, compressed or not, or a zip file, whose checksum was verified.
        into: an existing folder.
        wanted: relative paths with forward slashes; others are skipped.
        limit: bytes that all members together may hold.

    Raises:
        DataError: a link, a device, an absolute path, ``..``, too many members or bytes, a damaged archive; names the
            member. What was written before stays in ``into``, which the caller discards.
    """
    names = set(wanted)
    if archive.name.endswith(".zip"):
        _unpack_zip(archive, into, names, limit)
        return
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


def _unpack_zip(archive: Path, into: Path, names: set[str], limit: int) -> None:
    """The same for zip; only wanted members are decompressed, so only they count against the limit.

    A member's size in the directory is a claim: what comes out is counted while it is copied.
    """
    left = limit
    try:
        with zipfile.ZipFile(archive) as source:
            members = source.infolist()
            if len(members) > MEMBERS:
                raise DataError(f"{archive} has {len(members):,} members, allowed are {MEMBERS:,}: not unpacked")
            for member in members:
                _judge_zip(archive, member)
            for member in members:
                name = str(PurePosixPath(member.filename))
                if member.is_dir() or name not in names:
                    continue
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as packed, target.open("wb") as sink:
                    while block := packed.read(1 << 20):
                        left -= len(block)
                        if left < 0:
                            raise DataError(
                                f"{archive}: member {member.filename!r} goes beyond {limit:,} bytes: not unpacked"
                            )
                        sink.write(block)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} is not a whole zip archive ({error}): delete it and fetch it again") from error


def _judge_zip(archive: Path, member: zipfile.ZipInfo) -> None:
    mode = member.external_attr >> 16
    fault = _outside(member.filename)
    if fault is None and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "is a link" if stat.S_ISLNK(mode) else "is neither a file nor a folder"
    if fault is not None:
        raise DataError(f"{archive}: member {member.filename!r} {fault}: not unpacked")


def _outside(name: str) -> str | None:
    """What is wrong with a member's name, or None."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root:
        return "has an absolute path"
    return "points outside its folder" if ".." in posix.parts or ".." in windows.parts else None


def _judge(archive: Path, into: Path, member: tarfile.TarInfo) -> None:
    fault = _outside(member.name)
    if fault is not None:
        pass
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
