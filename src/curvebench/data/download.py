"""A downloader for pooch that goes on where a broken download stopped, and takes no more bytes than announced."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TextIO

import requests
import urllib3.exceptions

CONNECT, SILENCE = 10.0, 30.0
"""Seconds to wait for a connection, and for the next bytes of one."""
CHUNK = 1 << 18


class SizeError(Exception):
    """The server offers or sends another number of bytes than the card says."""


class Resuming:
    """Download into a partial file that outlives a broken connection; a later call asks for the rest only.

    Bytes are taken as the server holds them: decoding ``Content-Encoding: x-gzip``, which some servers announce for
    ``.tar.gz``, would unpack the archive and spoil its checksum.

    Args:
        part: the partial file; removed when complete.
        size: bytes of the whole file.
        advance: told the bytes that have arrived so far.
    """

    FAULTS: ClassVar[tuple[type[Exception], ...]] = (
        SizeError,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
    )

    def __init__(self, part: Path, size: int, advance: Callable[[int], None]) -> None:
        self.part, self.size, self.advance = part, size, advance

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Put the whole file at ``output_file``; pooch compares the checksum afterwards.

        Raises:
            SizeError: too many or too few bytes.
            requests.RequestException: no connection, time-out, or an HTTP status that is an error.
            urllib3.exceptions.HTTPError: the connection broke.
        """
        have = self.part.stat().st_size if self.part.exists() else 0
        if have > self.size:
            self.part.unlink()
            have = 0
        if have < self.size:
            self._go_on(url, have)
        os.replace(self.part, output_file)

    def _go_on(self, url: str, have: int) -> None:
        headers = {"Accept-Encoding": "identity", "User-Agent": "curvebench"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, timeout=(CONNECT, SILENCE), stream=True) as answer:
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                have = 0  # this server cannot resume
            announced = answer.headers.get("Content-Length")
            if announced is not None and have + int(announced) != self.size:
                raise SizeError(f"offers {have + int(announced):,} bytes, expected {self.size:,}")
            with self.part.open("ab" if have else "wb") as sink:
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    have += len(chunk)
                    if have > self.size:
                        break
                    sink.write(chunk)
                    self.advance(have)
        if have > self.size:
            self.part.unlink()
            raise SizeError(f"sends more than {self.size:,} bytes")
        if have < self.size:
            raise SizeError(f"broke off after {have:,} of {self.size:,} bytes")


@contextlib.contextmanager
def bar(title: str, total: int, stream: TextIO) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; on anything else, nothing."""
    if not stream.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)
