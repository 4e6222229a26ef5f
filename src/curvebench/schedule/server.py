"""The fork server: one process with the frameworks imported, from which every run is forked.

The standard library's own server is used. What is added: it is started with a chosen environment and choice of
frameworks, started again when either changes, and a child never imports the ``__main__`` of whoever started the study.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

PRELOAD: Mapping[str, tuple[str, ...]] = {
    # torch.optim imports torch._dynamo at the first step of the first optimiser: 1.8 s in every child otherwise.
    "torch": ("torch", "torch._dynamo", "torch.profiler"),
    "jax": ("jax", "jax.numpy", "optax"),
}
"""Modules imported once in the server. Importing them starts no thread and never initialises CUDA."""

_started_with: tuple[tuple[str, ...], tuple[tuple[str, str], ...]] | None = None


def preload_for(frameworks: Iterable[str], *more: str) -> tuple[str, ...]:
    """Modules that the server imports for runs in these frameworks, each once, in a fixed order."""
    names = ["numpy", "curvebench.schedule.child", *more]
    for framework in sorted(set(frameworks)):
        names += PRELOAD.get(framework, ())
    return (*dict.fromkeys(names), "curvebench.schedule.warm")


def ensure(preload: tuple[str, ...], environment: Mapping[str, str] | None = None) -> None:
    """Have a server running that imported ``preload`` under ``environment`` (added to the current one).

    Returns at once: the server imports while the caller goes on. A server that died, or that was started with other
    modules or another environment, is replaced.
    """
    global _started_with
    wanted = (preload, tuple(sorted((environment or {}).items())))
    if _started_with is not None and _started_with != wanted:
        stop()
    context().set_forkserver_preload(list(preload))
    with _environment(environment or {}), _anonymous_main():
        forkserver.ensure_running()
    _started_with = wanted


def context() -> multiprocessing.context.ForkServerContext:
    """The multiprocessing context that starts processes from the server."""
    return multiprocessing.get_context("forkserver")


def start(target: Callable[..., object], *args: Any) -> BaseProcess:
    """Fork ``target(*args)`` from the server. Blocks while the server is still importing."""
    process = context().Process(target=target, args=args, daemon=True)
    with _anonymous_main():
        process.start()
    return process


def pid() -> int | None:
    """Process id of the server, None before it was first started."""
    # There is no public way to ask; the attribute has kept this name since Python 3.4.
    found = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return found if isinstance(found, int) else None


def alive() -> bool:
    """Whether the server runs. Leaves a dead one to be reaped by the standard library."""
    number = pid()
    if number is None:
        return False
    try:
        return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def stop() -> None:
    """End the server; the next :func:`ensure` starts a new one.

    The standard library's own way waits until every descendant has closed a pipe, for ever if a method left one.
    """
    global _started_with
    _started_with = None
    number = pid()
    if number is None or not alive():
        return
    os.kill(number, signal.SIGKILL)
    os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)  # still reaped by the standard library, on its next start


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _anonymous_main() -> Iterator[None]:
    """Hide ``__main__`` while a process is described.

    Otherwise each child imports it again: the command line's imports (or pytest's) in every run, and a user's script
    without an ``if __name__ == "__main__"`` would start its study in every child. Worker functions live in modules.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
