"""SIGINT and SIGTERM while a study runs: noticed at once, handled where it is safe."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from curvebench.errors import StudyInterrupted


class Stopped(StudyInterrupted):
    """A study was stopped by a signal.

    Args:
        message: what is stored and how to go on.
        signal: its number; a shell expects exit code 128 + number.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.signal


class StopSignals:
    """While entered, SIGINT and SIGTERM set :attr:`number` and make :attr:`fd` readable instead of raising.

    Outside the main thread, where Python cannot handle signals, it does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.fd, self._write = -1, -1
        self._raising = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self.fd, self._write = os.pipe()
        os.set_blocking(self._write, False)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """While entered, a signal raises :class:`Stopped`: for waits that nothing else can end."""
        self._raising = True
        try:
            self.check()
            yield
        finally:
            self._raising = False

    def check(self) -> None:
        """Raise :class:`Stopped` if a signal came."""
        if self.number is not None:
            raise Stopped("stopped", self.number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        self.number = self.number or number
        if first:
            os.write(self._write, b"x")
            if self._raising:
                raise Stopped("stopped", self.number)
