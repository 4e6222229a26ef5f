"""What a step computes, in units of one gradient: counted after the run, on steps that no clock sees."""

from __future__ import annotations

import time
from typing import Protocol

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


def replay(engine: Replayed, first: int, period: int) -> tuple[Json, list[int]]:
    """Replay one period of steps and return the record's ``work``, and which steps of a period are dear.

    Args:
        engine: after its run; its parameters move on.
        first: index of the first step to replay.
        period: steps after which the kinds of step repeat; at most :data:`MOST_STEPS` are replayed, and fewer if they
            take longer than :data:`MOST_SECONDS`.
    """
    gradient = engine.gradient_work(first)
    before, began = list(engine.counts()), time.perf_counter()
    steps: list[Work] = []
    while len(steps) < min(period, MOST_STEPS) and (not steps or time.perf_counter() - began < MOST_SECONDS):
        steps.append(engine.step_work(first + len(steps)))
    ledger = [now - then for now, then in zip(engine.counts(), before, strict=True)]
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
    return work, sorted((first + i) % period for i in dear) if len(steps) == period else []


def account(out: Trajectory, work: Json | None) -> None:
    """Put gradient-equivalents on every point of a trajectory; None where the work is not known.

    Flops follow the queries where their number varies from step to step (line searches), else the steps.
    """
    unit = work["gradient"]["flops"] if work else 0.0
    if not work or not unit:
        out.gradient_equivalents = [None] * len(out.step)
        return
    per_step = work["step"]["flops"] / unit
    per_call = per_step * work["steps"] / work["oracle_calls"] if work["oracle_calls"] else None

    def at(step: int, calls: int) -> float:
        return float(calls * per_call if per_call is not None else step * per_step)

    out.gradient_equivalents = [at(s, c) for s, c in zip(out.step, out.oracle_calls, strict=True)]
    for point in (out.crossing, out.consumed):
        if point is not None:
            point["gradient_equivalents"] = at(point["step"], point["oracle_calls"])


def _flops(work: Work) -> float:
    return work.flops


def _cost(work: Work, over: int = 1) -> Json:
    return {"flops": work.flops / over, "bytes": work.bytes / over}
