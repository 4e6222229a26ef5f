"""Compare the kernels of two commits: ABBA interleaving in one job, a test with declared power, Holm over the suite.

For each benchmark both trees have a process of their own, pinned to the same core, of which only one runs at a time. A
block is base, head, head, base, so linear drift cancels, in processes that are forked and set up anew for it: where the
arrays happen to lie makes a launch of the same code several percent faster or slower for as long as it lives, so that a
launch is the unit of the test, not a timing. The number of blocks follows from the noise of a pilot alone.
The benchmarks are the checkout's own for both sides; a kernel that BASE does not have is new, not slower.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from select import select
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from curvebench.errors import CurvebenchError
from curvebench.procedures import benchmark_worker
from curvebench.procedures.source_trees import Tree
from curvebench.statistics.pairwise import holm
from curvebench.statistics.slowdown import Slowdown, blocks_needed, detectable, noise, slowdown

LEAST = 6
"""Blocks below which nothing is said."""
PILOT = 12
"""Blocks whose noise decides how many are taken."""
ROUNDS = 3
"""Times base, head, head, base inside one block."""
SAMPLE_SECONDS = 0.02
"""One timing lasts at least this long: far above the resolution of process_time on any kernel."""
SETUP_SECONDS = 120.0
"""Imports, set-up and first call of one side; off the clock, but not for ever."""


@dataclass(frozen=True)
class Plan:
    """How hard to look.

    Args:
        tolerance: what does not count as slower.
        detect: the slow-down that must be found.
        power: with this probability.
        alpha: probability of at least one false alarm over the whole suite.
        seconds: at most this long for the timings of one benchmark.
        clock: ``cpu`` (the process's own seconds, which a busy machine disturbs less) or ``wall`` (sees waiting too).
    """

    tolerance: float = 0.03
    detect: float = 0.10
    power: float = 0.9
    alpha: float = 0.05
    seconds: float = 60.0
    clock: str = "cpu"


class Late(CurvebenchError):
    """A worker did not answer in time."""


class Benchmark(NamedTuple):
    """A timed method of a suite with one choice of its parameters."""

    file: Path
    suite: str
    method: str
    choice: int
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """As asv writes it: ``file.Suite.time_method(values)``."""
        return f"{self.file.stem}.{self.suite}.{self.method}" + (f"({', '.join(self.values)})" if self.values else "")


@dataclass
class Outcome:
    """What came out for one benchmark: numbers, or a sentence that says why there are none."""

    benchmark: str
    verdict: str
    sentence: str = ""
    result: Slowdown | None = None
    detectable: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        numbers = self.result._asdict() if self.result else {}
        return {"benchmark": self.benchmark, "verdict": self.verdict, "sentence": self.sentence,
                "detectable": self.detectable, **numbers}  # fmt: skip


def discover(folder: Path, wanted: Sequence[str] = ()) -> list[Benchmark]:
    """The timed benchmarks of a folder; of those the ones whose name holds one of the words ``wanted``.

    Raises:
        CurvebenchError: nothing there is called so, there is no such folder, or a file of it cannot be imported.
    """
    files = [str(file) for file in sorted(folder.glob("*.py")) if file.stem != "__init__"]
    if not files:
        raise CurvebenchError(f"{folder} holds no benchmarks: they lie in a checkout, not in a wheel")
    command = [sys.executable, benchmark_worker.__file__, "--list", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CurvebenchError(f"benchmarks: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    found = [Benchmark(Path(f), suite, method, i, tuple(v)) for f, suite, method, i, v in json.loads(done.stdout)]
    chosen = [b for b in found if not wanted or any(word in b.name for word in wanted)]
    if not chosen:
        names = ", ".join(dict.fromkeys(b.name.partition("(")[0] for b in found))
        raise CurvebenchError(f"kernel = {', '.join(wanted)!r}: no timed benchmark's name holds it: {names or 'none'}")
    return chosen


class Worker:
    """A child that times one benchmark of one tree, pinned to ``core``."""

    def __init__(self, tree: Tree, benchmark: Benchmark, plan: Plan, core: int) -> None:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | one_thread | {"PYTHONHASHSEED": "0"}
        words = (benchmark_worker.__file__, tree.path, benchmark.file, benchmark.suite, benchmark.method,
                 benchmark.choice, plan.clock, core)  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ,
        )  # fmt: skip
        self._buffer = b""

    def launch(self) -> None:
        """Fork a process that sets the benchmark up.

        Raises:
            CurvebenchError: the set-up or the first call failed.
        """
        self._say("launch")
        self.answer(time.monotonic() + SETUP_SECONDS)

    def ask(self, number: int, deadline: float) -> float:
        """Seconds of ``number`` calls in the process that was launched last.

        Raises:
            CurvebenchError: it failed, died or did not answer in time.
        """
        self._say(str(number))
        return float(self.answer(deadline)["seconds"])

    def end(self) -> None:
        """End the process that was launched last."""
        self._say("end")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CurvebenchError("its process died") from None

    def answer(self, deadline: float) -> dict[str, Any]:
        """The next message."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select([self._process.stdout], [], [], left)[0]:
                raise Late("no answer in time")
            part = os.read(self._process.stdout.fileno(), 65536)
            if not part:
                raise CurvebenchError(f"its process died (exit code {self._process.wait()})")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise CurvebenchError(message["error"])
        return message

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.communicate()


def compare(base: Tree, head: Tree, benchmark: Benchmark, plan: Plan, tests: int = 1) -> Outcome:
    """Time one benchmark of two trees.

    Args:
        base: the older side.
        head: the newer one.
        benchmark: what is timed.
        plan: how hard to look.
        tests: how many benchmarks are compared at once; the number of blocks is chosen for alpha / tests.
    """
    core = _core()
    workers: list[Worker] = []
    try:
        for side, tree in (("BASE", base), ("HEAD", head)):
            worker = Worker(tree, benchmark, plan, core)
            workers.append(worker)
            try:
                worker.answer(time.monotonic() + SETUP_SECONDS)
                worker.launch()
                worker.end()
            except CurvebenchError as error:
                return Outcome(benchmark.name, "new" if side == "BASE" else "failed", f"{side}: {error}")
        return _measure(workers, benchmark, plan, tests, time.monotonic() + plan.seconds)
    except Late as error:
        return Outcome(benchmark.name, "too noisy", f"{error}: a quieter machine, or more --seconds")
    except CurvebenchError as error:
        return Outcome(benchmark.name, "failed", str(error))
    finally:
        for worker in workers:
            worker.close()


def _measure(workers: Sequence[Worker], benchmark: Benchmark, plan: Plan, tests: int, deadline: float) -> Outcome:
    workers[0].launch()
    number = _calls(workers[0], deadline)
    workers[0].end()
    sides: tuple[list[float], list[float]] = ([], [])
    outcome = Outcome(benchmark.name, "too noisy")

    def block() -> None:
        for side in (0, 1) if len(sides[0]) % 2 == 0 else (1, 0):
            workers[side].launch()
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for side in (0, 1, 1, 0):
                seconds[side].append(workers[side].ask(number, deadline) / number)
        for side in (0, 1):
            workers[side].end()
            sides[side].append(median(seconds[side]))

    alpha, needed = plan.alpha / tests, PILOT
    while len(sides[0]) < needed:
        started = time.monotonic()
        try:
            block()
        except Late:
            break
        if len(sides[0]) == PILOT:  # decided once, from the noise alone: the difference seen plays no part
            scatter = noise(np.log(sides[1]) - np.log(sides[0]))
            needed = max(PILOT, blocks_needed(scatter, plan.tolerance, plan.detect, alpha, plan.power))
        if 2 * time.monotonic() - started > deadline:  # the next block would not be in time
            break
    if len(sides[0]) < LEAST:
        outcome.sentence = f"only {len(sides[0])} blocks in {plan.seconds:g} s: a quieter machine, or more --seconds"
        return outcome
    outcome.result = slowdown(*sides, plan.tolerance)
    outcome.detectable = detectable(outcome.result.noise, outcome.result.n, plan.tolerance, alpha, plan.power)
    return outcome


def judge(outcomes: Sequence[Outcome], plan: Plan) -> None:
    """Give every measured benchmark its verdict: Holm over all p values at once; ``slower`` is an alarm."""
    measured = [(outcome, outcome.result) for outcome in outcomes if outcome.result is not None]
    for (outcome, result), p in zip(measured, holm([result.p for _, result in measured]), strict=True):
        enough = outcome.detectable is not None and outcome.detectable <= plan.detect * 1.05
        if p <= plan.alpha:
            outcome.verdict = "slower"
        elif result.high < 1 / (1 + plan.tolerance):
            outcome.verdict = "faster"
        else:
            outcome.verdict = "no change" if enough else "too noisy"
        if outcome.verdict == "too noisy":
            outcome.sentence = (
                f"noise {result.noise:.0%} a block: {result.n} blocks find a slow-down of {outcome.detectable:.0%}, "
                f"not of {plan.detect:.0%}"
            )


def bisect(
    commits: Sequence[str], slower: Callable[[str], bool | None], tell: Callable[[str], None] = lambda _: None
) -> str | None:
    """The first commit that is slower than what came before all of them; None if a comparison cannot be decided.

    Args:
        commits: oldest first; the last one is known to be slower.
        slower: whether a commit is slower than the base; None if it cannot be told.
        tell: is given a sentence before each comparison.
    """
    low, high = 0, len(commits) - 1  # the answer lies in commits[low : high + 1]
    while low < high:
        middle = (low + high) // 2
        tell(f"{high - low + 1} commits left, comparing {commits[middle][:10]}")
        found = slower(commits[middle])
        if found is None:
            return None
        low, high = (low, middle) if found else (middle + 1, high)
    return commits[low]


def _calls(worker: Worker, deadline: float) -> int:
    """How many calls make a timing long enough to be read off the clock."""
    number = 1
    while worker.ask(number, deadline) < SAMPLE_SECONDS and number < 2**20:
        number *= 2
    return number


def _core() -> int:
    """The last core that this process may use: the first ones serve interrupts and everybody else."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
