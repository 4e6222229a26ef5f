"""The clock bills a step for all its work, asynchronous work included, and for nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from curvebench.clock import Clock, EventClock, distribution
from curvebench.oracle import ledger
from curvebench.run.loop import Goal, Trajectory, train
from curvebench.spec import Budget, Status
from curvebench.tasks.problem import Evaluation

DELAY = 0.03


class Device:
    """Returns at once and works for ``DELAY`` seconds afterwards, one job after another."""

    def __init__(self) -> None:
        self._free = 0.0

    def enqueue(self, seconds: float = DELAY) -> None:
        self._free = max(self._free, time.perf_counter()) + seconds

    def synchronise(self) -> None:
        while (left := self._free - time.perf_counter()) > 0:
            time.sleep(left)


class Engine:
    """Steps take no host time; all the work is the device's. Evaluation takes as long as a step."""

    def __init__(self, device: Device, clock: Clock) -> None:
        self._device, self.clock = device, clock
        self.steps = 0

    def step(self, step: int, deadline: float) -> None:
        self._device.enqueue()
        self.steps += 1

    def evaluate(self) -> Evaluation:
        self._device.enqueue(3 * DELAY)
        self._device.synchronise()
        return Evaluation(1.0, 1.0, None)

    def counts(self) -> list[int]:
        return [self.steps if name == "gradient" else 0 for name in ledger.COLUMNS]


def test_work_that_finishes_later_is_billed_to_its_step() -> None:
    device = Device()
    clock = Clock(device.synchronise)
    for _ in range(3):
        clock.start()
        began = time.perf_counter()
        device.enqueue()
        assert time.perf_counter() - began < DELAY / 3, "the enqueueing itself is instant"
        clock.stop()
    assert all(DELAY <= lap < 3 * DELAY for lap in clock.laps)
    assert clock.seconds == pytest.approx(sum(clock.laps))


def test_a_clock_that_does_not_synchronise_would_fail_that_test() -> None:
    device = Device()
    clock = Clock(lambda: None)
    clock.start()
    device.enqueue()
    assert clock.stop() < DELAY / 3


def test_evaluation_is_off_the_clock_and_shown_apart() -> None:
    device = Device()
    engine, out = Engine(device, Clock(device.synchronise)), Trajectory()
    train(engine, Budget(4), Goal(None, "min", "loss"), 1, out)
    assert out.status is Status.BUDGET
    assert 4 * DELAY <= engine.clock.seconds < 8 * DELAY
    assert out.evaluation_seconds >= 5 * 3 * DELAY
    assert out.seconds == sorted(out.seconds)
    assert (out.seconds[0], out.step) == (0.0, [0, 1, 2, 3, 4])
    assert out.consumed == {"step": 4, "seconds": engine.clock.seconds, "oracle_calls": 4}


def test_seconds_of_asynchronous_work_end_the_run() -> None:
    device = Device()
    engine, out = Engine(device, Clock(device.synchronise)), Trajectory()
    train(engine, Budget(1000, 2.5 * DELAY), Goal(None, "min", "loss"), 100, out)
    assert engine.steps == 3
    assert out.reason == f"{2.5 * DELAY:g} s spent after 3 steps"
    assert out.step == [0, 3], "the last state is evaluated"


class Event:
    """A timing event of a fake stream: its time is when the stream reaches it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.at: float | None = None

    def record(self) -> None:
        self._stream.jobs.append(lambda now: setattr(self, "at", now))

    def elapsed_time(self, end: Event) -> float:
        assert self.at is not None, "read before the device was synchronised"
        assert end.at is not None
        return (end.at - self.at) * 1e3


class Stream:
    """Jobs in order, on a clock of its own; nothing runs before ``synchronise``."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[float], object]] = []
        self.now = 0.0
        self.synchronised = 0

    def work(self, seconds: float) -> None:
        self.jobs.append(lambda now: setattr(self, "now", now + seconds))

    def synchronise(self) -> None:
        self.synchronised += 1
        for job in self.jobs:
            job(self.now)
        self.jobs = []


def test_an_event_clock_reads_the_devices_own_times_once_per_block() -> None:
    stream = Stream()
    clock = EventClock(stream.synchronise, lambda: Event(stream), block=4)
    for step in range(10):
        stream.work(100.0)  # something between two steps, off the clock
        clock.start()
        stream.work(float(step + 1))
        total = clock.stop()
        assert stream.synchronised == (step + 1) // 4
        assert total == sum(range(1, 4 * ((step + 1) // 4) + 1)), "exact after each block"
    clock.flush()
    assert clock.laps == pytest.approx(list(range(1, 11)))
    assert clock.seconds == pytest.approx(55.0)
    clock.flush()
    assert clock.seconds == pytest.approx(55.0), "nothing is billed twice"


def test_the_loop_reads_complete_times_of_an_event_clock_at_every_evaluation() -> None:
    stream = Stream()

    class OnStream(Engine):
        def step(self, step: int, deadline: float) -> None:
            stream.work(1.0)
            self.steps += 1

        def evaluate(self) -> Evaluation:
            stream.work(50.0)
            return Evaluation(1.0, 1.0, None)

    out = Trajectory()
    engine = OnStream(Device(), EventClock(stream.synchronise, lambda: Event(stream), block=10))
    train(engine, Budget(7), Goal(None, "min", "loss"), 3, out)
    assert out.step == [0, 3, 6, 7]
    assert out.seconds == pytest.approx([0, 3, 6, 7])
    assert len(engine.clock.laps) == 7


def test_steady_state_leaves_out_the_first_step_and_keeps_both_modes() -> None:
    assert distribution([]) is None
    assert distribution([5.0]) is None
    found = distribution([100.0] + [1.0] * 80 + [9.0] * 20)
    assert found is not None
    assert (found.median, found.p10, found.p90, found.n) == (1.0, 1.0, 9.0, 100)


def test_a_jitted_computation_that_takes_long_is_billed() -> None:
    """Calling a compiled function returns before its host callback has slept; the clock waits for it."""
    jax = pytest.importorskip("jax")
    import numpy as np

    slept = threading.Event()

    def sleep(x: object) -> object:
        time.sleep(DELAY)
        slept.set()
        return np.asarray(x)

    @jax.jit
    def work(x: object) -> object:
        return jax.pure_callback(sleep, jax.ShapeDtypeStruct((), np.float32), x) + 1

    x = jax.device_put(np.float32(0))
    work(x).block_until_ready()
    state = [x]
    clock = Clock(lambda: state[0].block_until_ready())
    for _ in range(3):
        slept.clear()
        clock.start()
        state[0] = work(state[0])
        clock.stop()
        assert slept.is_set()
    assert all(lap >= DELAY for lap in clock.laps)
    assert float(state[0]) == 3.0


def test_the_jax_engines_clock_waits_for_a_slow_step(tmp_path: object) -> None:
    """One executable's outputs become ready together, so that the engine may wait for the smallest."""
    jax = pytest.importorskip("jax")
    import numpy as np

    from curvebench.run.engine_jax import JaxEngine

    def sleep(x: object) -> object:
        time.sleep(DELAY)
        return np.asarray(x)

    @jax.jit
    def step(big: object, index: object) -> object:
        slow = jax.pure_callback(sleep, jax.ShapeDtypeStruct((64, 64), np.float32), big)
        return slow @ big, index + 1

    engine = object.__new__(JaxEngine)
    big, index = jax.device_put(np.eye(64, dtype=np.float32)), jax.device_put(np.int32(0))
    jax.block_until_ready(step(big, index))
    engine.clock = Clock(engine._wait)
    for _ in range(3):
        engine.clock.start()
        big, index = step(big, index)
        engine.carry = (big, None, None, None, index)
        engine.clock.stop()
    assert all(lap >= DELAY for lap in engine.clock.laps)
