"""What a step computes, in units of one gradient: counted after the run, on steps that no clock sees."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from curvebench.oracle.ledger import as_dict, oracle_calls
from curvebench.oracle.work import Work
from curvebench.run.loop import Trajectory
from curvebench.types import Json

MOST_STEPS = 50
MOST_SECONDS = 20.0
DEARER = 1.02
"""A step that costs so much more than the cheapest is of another kind."""


class Replayed(Protocol):
    """An engine whose work can be counted."""

    def gradient_work(self, step: int) -> Work:
        """The work of one gradient on the batch of ``step``."""
        ...

    def step_work(self, step: int) -> Work:
        """Make ``step`` and return its work."""
        ...

    def counts(self) -> list[int]:
        """The ledger's columns so far."""
        ...


@dataclass(frozen=True)
class Meter:
    """What steps cost in units of one gradient.

    Args:
        costs: gradient-equivalents of the steps of one period, by their place in it; one mean where no whole period
            was replayed.
        calls: queries that each of them asked.
    """

    costs: tuple[float, ...]
    calls: tuple[float, ...]

    def at(self, step: int, calls: int) -> float:
        """Consumed after ``step`` steps that asked ``calls`` queries.

        Steps cost what they did in the replay. Queries beside those that were expected (line searches, a step that was
        interrupted) cost the mean of a query.
        """
        whole, rest = divmod(step, len(self.costs))
        cost = whole * math.fsum(self.costs) + math.fsum(self.costs[:rest])
        expected = whole * sum(self.calls) + sum(self.calls[:rest])
        return float(cost + (calls - expected) * self._per_call)

    def calls_within(self, step: int, budget: float) -> int | None:
        """Queries in all after which ``budget`` is consumed inside the step after ``step``; None if none are asked."""
        if not self._per_call:
            return None
        expected = self.at(step, 0)
        return max(0, math.ceil((budget - expected) / self._per_call - 1e-9))

    def fits(self, step: int, calls: int, budget: float) -> bool:
        """Whether the step after ``step`` is expected to end before the budget does."""
        most = self.calls_within(step, budget)
        return most is None or calls + self.calls[step % len(self.calls)] <= most

    @property
    def _per_call(self) -> float:
        asked = sum(self.calls)
        return math.fsum(self.costs) / asked if asked else 0.0


class Replay(NamedTuple):
    """The record's ``work``, which steps of a period are dear, and the meter; None if a gradient has no flops."""

    work: Json
    dear: list[int]
    meter: Meter | None


def replay(engine: Replayed, first: int, period: int) -> Replay:
    """Replay one period of steps.

    Args:
        engine: after its run, or one that is thrown away; its parameters move on.
        first: index of the first step to replay.
        period: steps after which the kinds of step repeat; at most :data:`MOST_STEPS` are replayed, and fewer if they
            take longer than :data:`MOST_SECONDS`.
    """
    gradient = engine.gradient_work(first)
    ledgers, began = [list(engine.counts())], time.perf_counter()
    steps: list[Work] = []
    while len(steps) < min(period, MOST_STEPS) and (not steps or time.perf_counter() - began < MOST_SECONDS):
        steps.append(engine.step_work(first + len(steps)))
        ledgers.append(list(engine.counts()))
    ledger = [now - then for now, then in zip(ledgers[-1], ledgers[0], strict=True)]
    total = Work()
    for step in steps:
        total.add(step)
    plain, refresh = min(steps, key=_flops), max(steps, key=_flops)
    dear = [i for i, step in enumerate(steps) if step.flops > DEARER * plain.flops] if len(steps) > 1 else []
    work: Json = {
        "gradient": _cost(gradient),
        "step": _cost(total, len(steps)),
        "plain": _cost(plain),
        "refresh": _cost(refresh) if dear else None,
        "steps": len(steps),
        "oracle_calls": oracle_calls(ledger),
        "ledger": {name: n / len(steps) for name, n in as_dict(ledger).items()},
        "unknown": sorted({*total.unknown, *gradient.unknown}),
    }
    whole = len(steps) == period
    calls = [float(oracle_calls(b) - oracle_calls(a)) for a, b in pairwise(ledgers)]
    return Replay(
        work,
        sorted((first + i) % period for i in dear) if whole else [],
        meter([step.flops for step in steps], calls, gradient.flops, first if whole else None),
    )


def meter(flops: Sequence[float], calls: Sequence[float], unit: float, first: int | None) -> Meter | None:
    """The meter of replayed steps.

    Args:
        flops: of each.
        calls: queries of each.
        unit: flops of one gradient; 0 if it has none that we know.
        first: index of the first; None if they are no whole period.
    """
    if not unit:
        return None
    n = len(flops)
    if first is None:
        return Meter((math.fsum(flops) / n / unit,), (sum(calls) / n,))
    order = [(place - first) % n for place in range(n)]
    return Meter(tuple(flops[i] / unit for i in order), tuple(calls[i] for i in order))


def account(out: Trajectory, meter: Meter | None) -> None:
    """Put gradient-equivalents on every point of a trajectory; None where the work is not known."""
    if meter is None:
        out.gradient_equivalents = [None] * len(out.step)
        return
    out.gradient_equivalents = [meter.at(s, c) for s, c in zip(out.step, out.oracle_calls, strict=True)]
    for point in (out.crossing, out.consumed):
        if point is not None:
            point["gradient_equivalents"] = meter.at(point["step"], point["oracle_calls"])


def _flops(work: Work) -> float:
    return work.flops


def _cost(work: Work, over: int = 1) -> Json:
    return {"flops": work.flops / over, "bytes": work.bytes / over}
