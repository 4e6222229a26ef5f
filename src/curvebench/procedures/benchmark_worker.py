"""One benchmark of one source tree, timed when the parent asks: the child of :mod:`curvebench.procedures.regress`.

Run as a script: ``python benchmark_worker.py TREE FILE CLASS METHOD INDEX CLOCK CORE``. It must not import what lies
beside it, only that of ``TREE/src``, and so the standard library alone. It answers with JSON lines.
``launch`` forks a process that sets the benchmark up, in memory of its own, and answers ``{"ready": true}`` or
``{"error": ...}``; each line ``N`` then has it take the seconds of N calls; ``end`` ends it.
``benchmark_worker.py --list FILE...`` prints one JSON array, the benchmarks of the files as
``[file, class, method, index, values]``.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

ADDR_NO_RANDOMIZE = 0x0040000
"""From Linux's ``personality(2)``."""


def choices(suite: type) -> list[tuple[Any, ...]]:
    """The parameters of a suite, one tuple a benchmark, in asv's order."""
    params = getattr(suite, "params", ())
    if not params:
        return [()]
    nested = all(isinstance(values, list | tuple) for values in params)
    return list(itertools.product(*params)) if nested else [(value,) for value in params]


def imported(file: str) -> ModuleType:
    """A benchmark file as a module."""
    spec = importlib.util.spec_from_file_location("curvebench_benchmark", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def load(file: str, name: str) -> Any:
    """The suite ``name`` of a benchmark file, made new."""
    return getattr(imported(file), name)()


def prepare(file: str, name: str, method: str, index: int) -> Callable[[], object]:
    """The timed call, with the suite set up for the choice of parameters number ``index``."""
    suite = load(file, name)
    values = choices(type(suite))[index]
    if hasattr(suite, "setup_cache"):
        values = (suite.setup_cache(), *values)
    if hasattr(suite, "setup"):
        suite.setup(*values)
    timed = getattr(suite, method)
    return lambda: timed(*values)


def seconds(call: Callable[[], object], number: int, clock: Callable[[], float]) -> float:
    """Seconds of ``number`` calls without the garbage collector, as timeit takes them."""
    gc.collect()
    gc.disable()
    try:
        began = clock()
        for _ in range(number):
            call()
        return clock() - began
    finally:
        gc.enable()


class Channel:
    """The way to the parent: what was standard output, which is nobody else's from now on."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # what a benchmark prints does not get into the answers

    def say(self, message: dict[str, Any]) -> None:
        """Write one JSON line."""
        os.write(self._out, (json.dumps(message) + "\n").encode())


def listing(files: list[str]) -> list[list[Any]]:
    """Every timed method of every suite with every choice of its parameters."""
    found: list[list[Any]] = []
    for file in files:
        module = imported(file)
        for name, suite in vars(module).items():
            if isinstance(suite, type) and suite.__module__ == module.__name__ and not name.startswith("_"):
                methods = [method for method in dir(suite) if method.startswith("time_")]
                cases = list(enumerate(choices(suite)))
                found += [
                    [file, name, method, index, list(map(str, values))] for method in methods for index, values in cases
                ]
    return found


def lines() -> Iterator[str]:
    """Lines of standard input, read byte by byte: what comes after a line may be another process's to read."""
    line = b""
    while byte := os.read(0, 1):
        if byte == b"\n":
            yield line.decode()
            line = b""
        else:
            line += byte


def explained(error: BaseException) -> dict[str, str]:
    """What went wrong and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {"error": f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"}


def serve(say: Callable[[dict[str, Any]], None], file: str, name: str, method: str, index: int, clock: str) -> None:
    """One launch: set up, answer until the parent says ``end``."""
    tick = time.process_time if clock == "cpu" else time.perf_counter
    try:
        call = prepare(file, name, method, index)
        call()  # compilation and first touches
        say({"ready": True})
        for line in lines():
            if line == "end":
                break
            say({"seconds": seconds(call, int(line), tick)})
    except BaseException as error:  # whatever it is, the parent goes on with the other benchmarks
        say(explained(error))


def without_random_layout() -> None:
    """Start again with address-space randomisation off, where the kernel lets us.

    Where code and heap happen to lie makes two processes of the same code up to 4 % faster or slower, for good.
    """
    mark = "CURVEBENCH_FIXED_LAYOUT"
    if sys.platform == "linux" and mark not in os.environ:
        os.environ[mark] = "1"
        if ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE) >= 0:
            os.execv(sys.executable, [sys.executable, *sys.argv])


def main() -> None:
    """Import what every launch needs, then fork one for each ``launch``."""
    tree, file, name, method, index, clock, core = sys.argv[1:8]
    say = Channel().say
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    source = os.path.join(tree, "src")
    sys.path[:] = [source, *(p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__)))]
    try:
        curvebench = importlib.import_module("curvebench")
        if not os.path.abspath(str(curvebench.__file__)).startswith(os.path.abspath(source) + os.sep):
            raise ImportError(f"curvebench came from {curvebench.__file__}, not from {source}")
        with open(file, encoding="utf-8") as text:
            words = text.read()
        for heavy in ("torch", "jax"):  # imported once, not by each launch
            if heavy in words and importlib.util.find_spec(heavy):
                importlib.import_module(heavy)
        say({"ready": True})
    except BaseException as error:  # as in serve
        say(explained(error))
        return
    for line in lines():
        if line == "launch":
            child = os.fork()
            if not child:
                serve(say, file, name, method, int(index), clock)
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                say({"error": "its process was killed"})


if __name__ == "__main__":
    if sys.argv[1] == "--list":
        print(json.dumps(listing(sys.argv[2:])))
    else:
        without_random_layout()
        main()
