"""The one clock. It bills what a step costs, asynchronous device work included, and nothing else.

The device is synchronised before every reading, so work that a step merely enqueued is billed to that step.
Evaluation, logging and storage happen between :meth:`Clock.stop` and the next :meth:`Clock.start`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Distribution(NamedTuple):
    """Step times in seconds: quantiles, and the mean, which alone shows what is rare and dear."""

    median: float
    p10: float
    p90: float
    n: int
    mean: float


class Clock:
    """Times steps on the host, with the device synchronised at both ends.

    Args:
        synchronise: waits until the device has finished everything enqueued so far.
    """

    def __init__(self, synchronise: Callable[[], object]) -> None:
        self._synchronise = synchronise
        self._began = 0.0
        self.laps: list[float] = []
        self.seconds = 0.0

    def start(self) -> float:
        """Begin a step; returns the reading in seconds.

        Whatever ran since the last step (an evaluation) was itself synchronised, so nothing is pending here.
        """
        self._began = time.perf_counter()
        return self._began

    def stop(self) -> float:
        """End a step: wait for the device, bill the time; returns the total on-clock seconds."""
        self._synchronise()
        lap = time.perf_counter() - self._began
        self.laps.append(lap)
        self.seconds += lap
        return self.seconds

    def flush(self) -> None:
        """Make ``laps`` and ``seconds`` complete; a host clock always is."""


class Event(Protocol):
    """A timing event of a device's stream, as ``torch.cuda.Event(enable_timing=True)``."""

    def record(self) -> object:
        """Enqueue the event."""
        ...

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds between two finished events."""
        ...


class EventClock(Clock):
    """Times steps by a pair of device events each, and synchronises once per block of steps instead of once per step.

    Args:
        synchronise: waits for the device.
        event: makes a timing event.
        block: steps between two synchronisations; ``seconds`` is exact after each block and after :meth:`flush`.
    """

    def __init__(self, synchronise: Callable[[], object], event: Callable[[], Event], block: int = 10) -> None:
        super().__init__(synchronise)
        self._event = event
        self._block = block
        self._open: list[tuple[Event, Event]] = []
        self._first: Event | None = None

    def start(self) -> float:
        """Enqueue the step's first event."""
        self._first = self._event()
        self._first.record()
        return time.perf_counter()

    def stop(self) -> float:
        """Enqueue the step's last event; read the block's events when it is full."""
        last = self._event()
        last.record()
        assert self._first is not None
        self._open.append((self._first, last))
        if len(self._open) >= self._block:
            self.flush()
        return self.seconds

    def flush(self) -> None:
        """Synchronise and read all open events."""
        self._synchronise()
        for first, last in self._open:
            lap = first.elapsed_time(last) / 1e3
            self.laps.append(lap)
            self.seconds += lap
        self._open = []


def distribution(laps: Sequence[float]) -> Distribution | None:
    """Summarise steady-state steps: the first lap, which pays for allocation and warm-up, is left out.

    Returns:
        None if there was no second step.
    """
    return _summary(laps[1:])


def by_kind(
    laps: Sequence[float], period: int, refreshing: Collection[int]
) -> tuple[Distribution | None, Distribution | None]:
    """Summarise plain and curvature-refreshing steps apart, the first lap left out.

    Args:
        laps: seconds of each step, from step 0.
        period: steps after which the kinds repeat.
        refreshing: which steps of a period refresh; none: all steps are of one kind, and both results are None.
    """
    if not refreshing:
        return None, None
    plain = [lap for step, lap in enumerate(laps) if step and step % period not in refreshing]
    refresh = [lap for step, lap in enumerate(laps) if step and step % period in refreshing]
    return _summary(plain), _summary(refresh)


def _summary(laps: Sequence[float]) -> Distribution | None:
    if not laps:
        return None
    low, median, high = (float(q) for q in np.quantile(laps, (0.1, 0.5, 0.9)))
    return Distribution(median, low, high, len(laps), float(np.mean(laps)))
