"""Runs in processes of their own: start, watch, time out, kill, and say in a sentence how each one ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from curvebench.errors import CurvebenchError
from curvebench.schedule import child, server
from curvebench.spec import RunSpec, Status

GRACE = 1.0
"""Seconds between asking a process to end and killing it."""
TAIL = 4096
"""Bytes kept of what a run prints; the rest is read and dropped, so that printing never blocks a run."""


@dataclass(frozen=True)
class Outcome:
    """How one process ended.

    Args:
        spec: what it was to run.
        cores: where it ran.
        record: what the worker returned, None if it returned nothing.
        status: set if there is no record.
        reason: sentence that goes with ``status``.
        seconds: wall time from the process's start to its end.
        output: the last bytes of what it printed.
        lost: the fork server died under it, which says nothing about the run: run it again.
    """

    spec: RunSpec
    cores: tuple[int, ...]
    record: dict[str, Any] | None
    status: Status | None
    reason: str
    seconds: float
    output: str
    lost: bool = False


@dataclass
class _Child:
    spec: RunSpec
    cores: tuple[int, ...]
    process: BaseProcess
    results: Connection
    output: Connection
    timeout: float
    began: float
    oom_kills: int
    server: int | None
    deadline: float  # of what it does now: running, or ending
    inbox: bytearray = field(default_factory=bytearray)
    message: Mapping[str, Any] | None = None
    tail: bytes = b""
    asked_to_end: bool = False
    timed_out: bool = False


class Isolation:
    """The processes of one study.

    Args:
        worker: ``module:function`` that each child calls with its RunSpec.
        preload: modules for the fork server, see :func:`server.preload_for`.
        environment: variables that must stand before the server starts, e.g. glibc's malloc settings.
    """

    def __init__(self, worker: str, preload: tuple[str, ...], environment: Mapping[str, str] | None = None) -> None:
        self.worker = worker
        self.preload = preload
        self.environment = dict(environment or {})
        self._children: list[_Child] = []

    def __len__(self) -> int:
        return len(self._children)

    def start(self, spec: RunSpec, cores: tuple[int, ...], timeout: float) -> None:
        """Start one run on ``cores``; it is killed ``timeout`` seconds after its process stands.

        Raises:
            CurvebenchError: no process can be started.
        """
        order = child.Order(self.worker, spec.to_json(), cores, {**os.environ, **self.environment})
        oom_kills = _oom_kills()
        for attempt in (1, 2):
            results, results_end = server.context().Pipe(duplex=False)
            output, output_end = server.context().Pipe(duplex=False)
            try:
                server.ensure(self.preload, self.environment)
                process = server.start(child.main, order, results_end, output_end)
                break
            except (EOFError, OSError) as error:
                results.close()
                output.close()
                server.stop()  # it may be dying still, and look alive to the next attempt
                if attempt == 2:
                    modules = ", ".join(self.preload)
                    raise CurvebenchError(
                        f"no process can be started for a run: the fork server (imports {modules}) ended: {error!r}"
                    ) from error
            finally:
                results_end.close()
                output_end.close()
        for pipe in (results, output):
            os.set_blocking(pipe.fileno(), False)
        now = time.monotonic()
        self._children.append(
            _Child(spec, cores, process, results, output, timeout, now, oom_kills, server.pid(), deadline=now + timeout)
        )

    def wait(self, timeout: float, *others: int) -> list[Outcome]:
        """Watch until a run ended, one of ``others`` (file descriptors) is readable or ``timeout`` seconds passed."""
        end = time.monotonic() + timeout
        while True:
            nearest = min([end, *(c.deadline for c in self._children)])
            pipes: list[Any] = [*others]
            for c in self._children:
                pipes += [p for p in (c.results, c.output) if not p.closed] + [c.process.sentinel]
            readable = wait(pipes, max(0.0, nearest - time.monotonic()))
            outcomes = [outcome for c in list(self._children) if (outcome := self._look(c)) is not None]
            if outcomes or any(o in readable for o in others) or time.monotonic() >= end:
                return outcomes

    def kill(self) -> None:
        """Kill every run and all that it started."""
        for c in self._children:
            _signal(c, signal.SIGKILL)
        for c in self._children:
            c.process.join(GRACE)
            self._close(c)
        self._children.clear()

    def _look(self, c: _Child) -> Outcome | None:
        ended = c.process.exitcode is not None  # asked before reading, so that what it wrote last is read
        _drain_output(c)
        _drain_results(c)
        if ended:
            _signal(c, signal.SIGKILL)  # what the method started and left behind
            self._children.remove(c)
            outcome = _outcome(c)
            self._close(c)
            return outcome
        now = time.monotonic()
        if c.message is not None and not c.asked_to_end:
            c.asked_to_end, c.deadline = True, now + GRACE  # it ends by itself; a hook of the method's may hang
        elif now >= c.deadline:
            if c.asked_to_end:
                _signal(c, signal.SIGKILL)
                c.deadline = now + GRACE
            else:
                c.asked_to_end = c.timed_out = True
                _signal(c, signal.SIGTERM)
                c.deadline = now + GRACE
        return None

    @staticmethod
    def _close(c: _Child) -> None:
        c.results.close()
        c.output.close()
        # Not even SIGKILL ends a process in uninterruptible sleep; it goes with this one.
        with contextlib.suppress(ValueError):
            c.process.close()


def _signal(c: _Child, number: int) -> None:
    """Send to the run's process group, or to the process while it has no group of its own."""
    if c.process.pid is None:
        return
    try:
        os.killpg(c.process.pid, number)
    except ProcessLookupError:
        if c.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(c.process.pid, number)
    except PermissionError:
        pass  # it changed its user; nothing more can be done


def _read(pipe: Connection, most: int) -> bytes:
    """What is there now, at most ``most`` bytes; closes the pipe at its end."""
    chunks: list[bytes] = []
    size = 0
    while not pipe.closed and size < most:
        try:
            chunk = os.read(pipe.fileno(), 1 << 16)
        except BlockingIOError:
            break
        if not chunk:
            pipe.close()
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _drain_output(c: _Child) -> None:
    c.tail = (c.tail + _read(c.output, 1 << 20))[-TAIL:]


def _drain_results(c: _Child) -> None:
    c.inbox += _read(c.results, 1 << 30)
    while len(c.inbox) >= child.HEADER:
        end = child.HEADER + int.from_bytes(c.inbox[: child.HEADER], "big")
        if len(c.inbox) < end:
            return
        message = json.loads(c.inbox[child.HEADER : end])
        del c.inbox[:end]
        if "ready" in message:
            c.deadline = time.monotonic() + c.timeout
        else:
            c.message = message


def _outcome(c: _Child) -> Outcome:
    seconds = time.monotonic() - c.began
    record: dict[str, Any] | None = None
    status: Status | None = None
    reason = ""
    lost = False
    code = c.process.exitcode
    if c.message is not None and "record" in c.message:
        record = c.message["record"]
    elif c.message is not None:
        status, reason = Status(c.message["status"]), c.message["reason"]
    elif c.timed_out:
        status, reason = Status.TIMEOUT, f"killed: it had not ended after {c.timeout:g} s of wall time (--timeout)"
    elif code == 255 and _server_died(c.server):
        lost, status, reason = True, Status.CRASHED, "the fork server died under it"
    elif code is not None and code < 0:
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL and _oom_kills() > c.oom_kills:
            status, reason = Status.OUT_OF_MEMORY, "the kernel killed the process for want of memory"
        else:
            status, reason = Status.CRASHED, f"the process died of {name}"
    else:
        status, reason = Status.CRASHED, f"the process left with exit code {code} before it had a result"
    return Outcome(c.spec, c.cores, record, status, reason, seconds, c.tail.decode(errors="replace"), lost)


def _server_died(number: int | None) -> bool:
    """Whether an exit code of 255 stands for the end of the server rather than of the run."""
    for _ in range(20):  # its pipes close a moment before the kernel calls it dead
        if number != server.pid() or not server.alive():
            return True
        time.sleep(0.01)
    return False


def _oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot, 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
