"""How long runs will take, judged by what is stored: as the parent of their processes sees it, compilation included.

A run is a fixed part (process, set-up, evaluation, the replay after it) and its seconds on the clock, which its budget
bounds. In jax the first run of a method on a task compiles; the later ones find that in the cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from statistics import median

from curvebench import cards
from curvebench.errors import CurvebenchError
from curvebench.spec import RunSpec
from curvebench.store import Record

GUESS = 5.0
"""Seconds taken for a run that nothing is known of and that has no budget in seconds."""
START = 0.02
"""Seconds between the end of a process and the start of the next: the result is stored."""
WEIGHTS = {"loss": 1 / 3, "gradient": 1.0, "jvp": 1.0, "hvp": 2.0, "ggnvp": 2.0, "layer_statistics": 1.0}
"""Of one query, in gradients, for the cards' formulas; others count as one."""


@dataclass(frozen=True)
class Estimate:
    """Seconds by run id, and how many of them rest on nothing but a guess."""

    seconds: dict[str, float]
    guessed: int

    def total(self, jobs: int = 1) -> float:
        """Wall seconds with so many runs at a time."""
        return sum(self.seconds.values()) / jobs


@dataclass
class Seen:
    """What runs of one kind took.

    Args:
        warm: seconds of those that compiled nothing anew.
        cold: of those that did, with the seconds of compilation.
        fixed: seconds of a run that are not on the clock, compilation aside.
        rates: seconds on the clock per step.
        per_gradient: these over the gradients that the card says a step asks.
    """

    warm: list[float] = field(default_factory=list)
    cold: list[tuple[float, float]] = field(default_factory=list)
    fixed: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    per_gradient: list[float] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Take in a record."""
        seconds, consumed = record.seconds, record.consumed
        whole = cost(record)
        if whole is None:
            return
        compilation = seconds.compilation or 0.0
        if seconds.cache == "miss":
            self.cold.append((whole, compilation))
        else:
            self.warm.append(whole)
        if consumed.step and consumed.seconds is not None:
            self.fixed.append(max(whole - compilation - consumed.seconds, 0.0))
            self.rates.append(consumed.seconds / consumed.step)
            if asked := gradients(record.spec, record.memory.parameter_bytes):
                self.per_gradient.append(self.rates[-1] / asked)

    def compilation(self) -> float:
        """Seconds that the first run compiles."""
        return median(seconds for _, seconds in self.cold) if self.cold else 0.0

    def expected(self, first: bool) -> float:
        """Seconds of a run of this kind."""
        if first and self.cold:
            return median(whole for whole, _ in self.cold)
        if self.warm:
            return median(self.warm)
        return median(whole - seconds for whole, seconds in self.cold)

    def scaled(self, spec: RunSpec, rate: float, first: bool) -> float:
        """Seconds of a run with another budget or method, ``rate`` seconds a step."""
        steps = rate * spec.budget.steps
        clock = steps if spec.budget.seconds is None else min(steps, spec.budget.seconds)
        return median(self.fixed) + clock + (self.compilation() if first else 0.0)


def estimate(specs: Sequence[RunSpec], records: Iterable[Record]) -> Estimate:
    """Expect of each run what the nearest stored runs took.

    In this order: the same run; its method on the task; its method there under another budget, by its seconds a step;
    other methods on the task, by the oracle queries that the two cards state; other methods on the task; its budget.
    """
    seen: defaultdict[Hashable, Seen] = defaultdict(Seen)
    bytes_of: dict[str, int] = {}
    for record in records:
        if cost(record) is None:
            continue
        for kind in kinds(record.spec):
            seen[kind].add(record)
        if record.memory.parameter_bytes is not None:
            bytes_of[record.spec.task] = record.memory.parameter_bytes
    compiled: set[Hashable] = {kind for kind in seen if isinstance(kind, tuple) and kind[0] == "method"}
    seconds: dict[str, float] = {}
    guessed = 0
    for spec in specs:
        same, alike, method, peers, place = kinds(spec)
        first = method not in compiled
        compiled.add(method)
        known = next((seen[kind] for kind in (same, alike) if kind in seen), None)
        asked = gradients(spec, bytes_of.get(spec.task))
        if known is not None:
            value = known.expected(first)
        elif method in seen and seen[method].rates:
            value = seen[method].scaled(spec, median(seen[method].rates), first)
        elif asked and place in seen and seen[place].per_gradient:
            value = seen[place].scaled(spec, median(seen[place].per_gradient) * asked, first)
        elif peers in seen:
            value = seen[peers].expected(first)
        else:
            value = START + (spec.budget.seconds or GUESS)
            guessed += 1
        seconds[spec.id] = value
    return Estimate(seconds, guessed)


def cost(record: Record) -> float | None:
    """Wall seconds of a run; None where nothing says."""
    return None if record.seconds.total is None else record.seconds.total + START


def gradients(spec: RunSpec, parameter_bytes: int | None) -> float | None:
    """Work of one step by the method's card, in gradients; None where there is no card or no formula."""
    try:
        card = cards.method(spec.method)
        numbers = (parameter_bytes or 0) // (int(spec.dtype[-2:]) // 8)
        asked = card.queries_per_step(spec.hyperparameters, d=max(numbers, 1))
    except (CurvebenchError, ValueError, KeyError, OSError):
        return None
    return sum(WEIGHTS.get(query, 1.0) * number for query, number in asked.items()) or None


def kinds(spec: RunSpec) -> Iterator[Hashable]:
    """What the run is alike to, the nearest first."""
    place = (spec.task, spec.scale, spec.framework, spec.device)
    budget = astuple(spec.budget)  # a smoke run says nothing about a real one
    yield spec.id
    yield ("alike", *place, *budget, spec.method)
    yield ("method", *place, spec.method)
    yield ("peers", *place, *budget)
    yield ("place", *place)
