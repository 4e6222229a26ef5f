"""The clock tests itself: known delays, of which it must bill every one that belongs to a step and no other.

Three devices: a fake one that answers at once and works afterwards, a real jitted jax computation that sleeps after its
dispatch has returned, and torch's own. ``curvebench doctor --clock`` prints the findings; the tests require them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from curvebench.clock import Clock
from curvebench.run.loop import Goal, Trajectory, train
from curvebench.spec import Budget
from curvebench.tasks.problem import Evaluation

DELAY = 0.05
"""Seconds of every injected delay."""
TOLERANCE = 0.4
"""A bill may exceed the delay by this share (a busy machine oversleeps); it may never fall below it."""
STEPS = 4


class Finding(NamedTuple):
    """One statement about the clock.

    Args:
        holds: None where it could not be tried.
        billed: seconds on the clock per step.
        expected: seconds that belong there.
        seen: a sentence.
    """

    statement: str
    holds: bool | None
    billed: float | None
    expected: float
    seen: str


class FakeDevice:
    """Returns at once and works for ``seconds`` afterwards, one job after another."""

    def __init__(self) -> None:
        self._free = 0.0

    def enqueue(self, seconds: float) -> None:
        """Start a job behind those that are running."""
        self._free = max(self._free, time.perf_counter()) + seconds

    def synchronise(self) -> None:
        """Wait for all jobs."""
        while (left := self._free - time.perf_counter()) > 0:
            time.sleep(left)


class _Engine:
    """Runs ``work`` in a step and ``look`` in an evaluation."""

    def __init__(self, work: Callable[[], object], look: Callable[[], object], synchronise: Callable[[], object]):
        self.clock = Clock(synchronise)
        self._work, self._look = work, look

    def step(self, step: int, deadline: float) -> None:
        self._work()

    def stop_at(self, calls: int | None) -> None:
        """Its steps ask nothing."""

    def evaluate(self) -> Evaluation:
        self._look()
        return Evaluation(1.0, 1.0, None)

    def counts(self) -> list[int]:
        return [0]


def _nothing() -> None:
    return None


def per_step(work: Callable[[], object], look: Callable[[], object], synchronise: Callable[[], object]) -> float:
    """Seconds on the clock per step of the harness's own loop, which evaluates after every step."""
    engine = _Engine(work, look, synchronise)
    train(engine, Budget(STEPS), Goal(None, "min", "loss"), 1, Trajectory())
    return float(np.median(engine.clock.laps))


def check_clock() -> Iterator[Finding]:
    """Yield one finding per statement; about two seconds."""
    fake = FakeDevice()

    def enqueue() -> None:
        fake.enqueue(DELAY)

    def look() -> None:
        fake.enqueue(DELAY)
        fake.synchronise()

    yield _billed("work that a device finishes later is billed to its step",
                  per_step(enqueue, _nothing, fake.synchronise), DELAY)  # fmt: skip
    unsynchronised = per_step(enqueue, fake.synchronise, _nothing)
    yield Finding("the same work escapes a clock that does not synchronise (so the test can fail)",
                  unsynchronised < DELAY / 2, unsynchronised, 0.0, f"{1e3 * unsynchronised:.1f} ms billed")  # fmt: skip
    yield _free("an evaluation is not billed", per_step(_nothing, look, fake.synchronise))
    yield _free("a host's evaluation is not billed", per_step(_nothing, lambda: time.sleep(DELAY), _nothing))
    yield from _jax_findings()


def _jax_findings() -> Iterator[Finding]:
    statement = "a jitted computation that sleeps after its dispatch is billed to its step"
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        yield Finding(statement, None, None, DELAY, f"not tried: {error}")
        return

    def sleep(x: Any) -> Any:
        time.sleep(DELAY)
        return np.asarray(x)

    @jax.jit
    def computation(x: Any) -> Any:
        return jax.pure_callback(sleep, jax.ShapeDtypeStruct((), jnp.float32), x) + 1.0

    state = [jax.block_until_ready(computation(jnp.float32(0.0)))]  # compiled

    def step() -> None:
        state[0] = computation(jnp.float32(0.0))

    def wait() -> None:
        state[0].block_until_ready()

    yield _billed(statement, per_step(step, _nothing, wait), DELAY)

    def look() -> None:
        step()
        wait()

    yield _free("a jitted evaluation is not billed", per_step(_nothing, look, wait))


def _billed(statement: str, seconds: float, expected: float) -> Finding:
    holds = expected <= seconds <= expected * (1 + TOLERANCE)
    return Finding(statement, holds, seconds, expected, f"{1e3 * seconds:.1f} ms billed for {1e3 * expected:.0f} ms")


def _free(statement: str, seconds: float) -> Finding:
    return Finding(statement, seconds < DELAY / 10, seconds, 0.0, f"{1e3 * seconds:.2f} ms billed for 0 ms")
