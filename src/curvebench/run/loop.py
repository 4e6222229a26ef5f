"""The loop that every method runs in: steps on the clock, evaluation off it, the first limit met ends it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Protocol

from curvebench.clock import Clock
from curvebench.oracle.ledger import oracle_calls
from curvebench.spec import Budget, Status
from curvebench.tasks.problem import Evaluation
from curvebench.types import Json


class StepInterrupted(Exception):
    """Raised by an engine whose step ran out of a budget between two queries; the message names its unit."""


class Costs(Protocol):
    """What steps and queries cost in gradient-equivalents."""

    def at(self, step: int, calls: int) -> float:
        """Consumed after so many steps and queries."""
        ...

    def calls_within(self, step: int, budget: float) -> int | None:
        """Queries in all after which a budget is consumed inside the step after ``step``."""
        ...

    def fits(self, step: int, calls: int, budget: float) -> bool:
        """Whether the step after ``step`` is expected to end before the budget does."""
        ...


class Engine(Protocol):
    """One method on one task in one framework."""

    clock: Clock

    def step(self, step: int, deadline: float) -> None:
        """One optimiser step; may raise :class:`StepInterrupted` once ``time.perf_counter()`` exceeds ``deadline``."""
        ...

    def stop_at(self, calls: int | None) -> None:
        """Interrupt a step that has asked so many queries in all, if steps can be interrupted."""
        ...

    def evaluate(self) -> Evaluation:
        """Evaluate the live parameters."""
        ...

    def counts(self) -> list[int]:
        """The ledger's columns so far."""
        ...


ROUNDING = 1e-12
"""Relative: a budget of 30 steps' worth is consumed after 30 of them, whatever their sum rounds to."""


@dataclass
class Goal:
    """The task's shared target.

    Args:
        value: of the metric, or None.
        direction: ``min`` or ``max``.
        name: of the metric.
    """

    value: float | None
    direction: str
    name: str

    def met(self, metric: float) -> bool:
        """Whether ``metric`` is at least as good as the target."""
        if self.value is None:
            return False
        return metric <= self.value if self.direction == "min" else metric >= self.value

    def describe(self, metric: float, step: int) -> str:
        """A sentence for the record's reason."""
        return f"{self.name} {metric:.4g} {'<=' if self.direction == 'min' else '>='} {self.value:g} at step {step}"


@dataclass
class Trajectory:
    """What the loop saw: one entry per evaluation in each list."""

    step: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    oracle_calls: list[int] = field(default_factory=list)
    gradient_equivalents: list[float | None] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    test: list[float | None] = field(default_factory=list)
    crossing: Json | None = None
    consumed: Json = field(default_factory=lambda: {"step": 0, "seconds": 0.0, "oracle_calls": 0})
    evaluation_seconds: float = 0.0
    status: Status = Status.BUDGET
    reason: str = ""


def train(engine: Engine, budget: Budget, goal: Goal, every: int, out: Trajectory, costs: Costs | None = None) -> None:
    """Run until the budget is spent or the loss is not finite; fills ``out`` as it goes.

    A budget of gradient-equivalents needs ``costs``. It ends the run after the step that consumes the last of it, or
    inside a step that asks several queries.

    The run goes on after the target is met, so that the final metric means the same for all methods. ``out`` is the
    caller's, so that what was seen before an exception is kept.
    """
    clock, limit = engine.clock, math.inf if budget.seconds is None else budget.seconds
    if not _look(engine, clock, 0, goal, out):
        return
    step, over = 0, ""
    cost_limit = math.inf if budget.gradient_equivalents is None or costs is None else budget.gradient_equivalents
    while step < budget.steps and not over:
        if costs is not None and cost_limit < math.inf:
            engine.stop_at(costs.calls_within(step, cost_limit))
            unfinished = not costs.fits(step, oracle_calls(engine.counts()), cost_limit)
            if unfinished and step != out.step[-1] and not _look(engine, clock, step, goal, out):
                return  # looked at before a step that may be left halfway, where nothing can be evaluated
        began = clock.start()
        try:
            engine.step(step, began + limit - clock.seconds)
        except StepInterrupted as interrupted:
            clock.stop()
            out.reason = f"{_spent(budget, str(interrupted))} inside step {step + 1}"
            break
        over = "seconds" if clock.stop() >= limit else ""
        step += 1
        if costs is not None and cost_limit < math.inf and not over:
            consumed = costs.at(step, oracle_calls(engine.counts()))
            over = "gradient-equivalents" if consumed >= cost_limit * (1 - ROUNDING) else ""
        if (over or step % every == 0 or step == budget.steps) and not _look(engine, clock, step, goal, out):
            return
    clock.flush()
    out.consumed = {"step": step, "seconds": clock.seconds, "oracle_calls": oracle_calls(engine.counts())}
    spent = out.reason or (f"{_spent(budget, over)} after {step} steps" if over else f"{step} steps spent")
    if out.crossing is not None:
        out.status = Status.REACHED
        out.reason = goal.describe(out.crossing.pop("metric"), out.crossing["step"])
    else:
        out.reason = spent if goal.value is None else f"{spent}, target {goal.name} {goal.value:g} not met"


def _spent(budget: Budget, unit: str) -> str:
    """Which limit ended the run."""
    if unit == "gradient-equivalents":
        return f"{budget.gradient_equivalents:g} gradient-equivalents spent"
    return f"{budget.seconds:g} s spent"


def _look(engine: Engine, clock: Clock, step: int, goal: Goal, out: Trajectory) -> bool:
    """Evaluate off the clock and append to the curve; False if the run has diverged."""
    clock.flush()
    calls = oracle_calls(engine.counts())
    began = time.perf_counter()
    seen = engine.evaluate()
    out.evaluation_seconds += time.perf_counter() - began
    out.consumed = {"step": step, "seconds": clock.seconds, "oracle_calls": calls}
    out.step.append(step)
    out.seconds.append(clock.seconds)
    out.oracle_calls.append(calls)
    out.metric.append(seen.metric)
    out.loss.append(seen.loss)
    out.test.append(seen.test)
    if not (math.isfinite(seen.loss) and math.isfinite(seen.metric)):
        out.status, out.crossing = Status.DIVERGED, None
        out.reason = f"the loss is {seen.loss} at step {step}"
        return False
    if out.crossing is None and step > 0 and goal.met(seen.metric):
        out.crossing = {"step": step, "seconds": clock.seconds, "oracle_calls": calls, "metric": seen.metric}
    return True
