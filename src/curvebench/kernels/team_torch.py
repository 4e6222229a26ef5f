"""One function on all the threads with which torch's CPU operators work.

A thread that has done its part of an operator waits for the next one actively, for milliseconds, and keeps its core
from every other thread. Python's own threads, started after a forward, would therefore share that core with a thread
that does nothing. The OpenMP team itself is at hand at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import torch

MOST = 8
"""Threads that are used at most: each needs memory of its own, and Python's lock."""
_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def size() -> int:
    """How many threads :func:`together` should be asked for."""
    return min(torch.get_num_threads(), MOST)


def together(call: Callable[[], None], threads: int) -> None:
    """Run ``call()`` on up to ``threads`` threads at once, this one among them; return when all have ended.

    Where torch is built with another OpenMP than GNU's, Python's threads do it.

    Raises:
        BaseException: the first that a call ended with.
    """
    errors: list[BaseException] = []

    def guarded(_data: Any = None) -> None:
        try:
            call()
        except BaseException as error:  # ctypes would print and drop it
            errors.append(error)

    if threads == 1:
        call()
        return
    if (parallel := _gnu()) is not None:
        parallel(_TASK(guarded), None, threads, 0)
    else:
        aside = [_workers().submit(guarded) for _ in range(threads - 1)]
        guarded()
        wait(aside)
    if errors:
        raise errors[0]


@cache
def _gnu() -> Any:
    """``GOMP_parallel`` of the library that torch brings and uses; None if it brings none."""
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        found = ctypes.CDLL(str(path)).GOMP_parallel  # torch has loaded it: this is the same copy
        found.argtypes, found.restype = (_TASK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
        return found
    return None


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST - 1, thread_name_prefix="curvebench")
