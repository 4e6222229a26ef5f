"""Which learning rates of a method a schedule moves, by how much at every step, and what a record says about it."""

from __future__ import annotations

from curvebench.cards import MethodCard, RateSchedule
from curvebench.cards.rate_schedule import parse
from curvebench.spec import RunSpec


def multipliers(method: MethodCard, spec: RunSpec) -> tuple[float, ...]:
    """The factor of every step of the budget; empty where the rate is constant or the method has none."""
    schedule = parse(spec.schedule)
    return multiplied(schedule, spec.budget.steps) if method.rates else ()


def multiplied(schedule: RateSchedule, steps: int) -> tuple[float, ...]:
    """The schedule's factors, empty for a constant one: nothing is done then."""
    return () if schedule.constant else schedule.multipliers(steps)


def note(method: MethodCard, spec: RunSpec) -> list[str]:
    """A sentence for the record where the schedule is not constant."""
    schedule = parse(spec.schedule)
    if schedule.constant:
        return []
    told = schedule.describe(spec.budget.steps)
    if method.rates:
        return [f"learning rate ({', '.join(method.rates)}) {told}"]
    return [f"learning-rate schedule ({told}) not applied: {method.unscheduled or 'the method has no learning rate'}"]
