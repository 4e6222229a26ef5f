"""What happens inside the process of one run, before and after the work: pin, guard, run, send back.

Imports no framework: the fork server imports it whatever the study needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from curvebench.machine import THREAD_VARIABLES
from curvebench.spec import RunSpec, Status

HEADER = 8
"""Bytes of the length that precedes a message, big-endian."""


@dataclass(frozen=True)
class Order:
    """What the parent tells a child.

    Args:
        worker: ``module:function`` that takes a RunSpec and returns a dict of JSON types.
        spec: :meth:`RunSpec.to_json`.
        cores: the cores that this child has for itself.
        environment: the parent's environment; the server's may be older.
    """

    worker: str
    spec: Mapping[str, Any]
    cores: tuple[int, ...]
    environment: Mapping[str, str]


def main(order: Order, results: Connection, output: Connection) -> None:
    """Do one order and leave: never returns to the interpreter's own shutdown, which a method's threads could block."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.setpgid(0, 0)  # so that whatever the method starts is killed with it
    # Before any backend starts its threads: affinity is the only thing that holds XLA's.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order.cores)
    _die_with_parent()
    os.environ.clear()
    os.environ.update(order.environment)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(len(order.cores))))
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that a folder named like a package shadows nothing
    send(results, b'{"ready": true}')
    try:
        message = _work(order)
    finally:
        for stream in (sys.stdout, sys.stderr):
            # A method may have closed or broken the stream; its output is not a result.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    send(results, message)
    os._exit(0)


def send(results: Connection, body: bytes) -> None:
    """Write one message: its length, then its body."""
    view = memoryview(len(body).to_bytes(HEADER, "big") + body)
    while view:
        view = view[os.write(results.fileno(), view) :]


def function(reference: str) -> Callable[..., Any]:
    """Import ``module:function``."""
    module, _, name = reference.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _work(order: Order) -> bytes:
    """The message that ends a run: its ``record``, or ``status`` and ``reason`` if the worker raised."""
    try:
        record = function(order.worker)(RunSpec.from_json(dict(order.spec)))
        return json.dumps({"record": record}).encode()
    except MemoryError as error:
        failure = {"status": Status.OUT_OF_MEMORY.value, "reason": _sentence(error)}
    except BaseException as error:  # SystemExit too: a method must not be able to end its run without a record
        traceback.print_exc()
        failure = {"status": Status.CRASHED.value, "reason": _sentence(error)}
    return json.dumps(failure).encode()


def _sentence(error: BaseException) -> str:
    """``TypeError: message (opt.py:12)``, the place being the innermost line."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else text


def _die_with_parent() -> None:
    """Kill this process and all it started as soon as the study's process is gone, even by SIGKILL.

    The kernel does it where it can signal the end of a pipe (a method that never releases the GIL cannot stop it),
    a thread everywhere else.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return  # called directly, in a test
    sentinel = parent.sentinel
    group = os.getpgrp()
    if sys.platform == "linux":
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, -group)
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([sentinel], [], [], 0)[0]:  # it died before the kernel was asked
            os.killpg(group, signal.SIGKILL)

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os.killpg(group, signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
