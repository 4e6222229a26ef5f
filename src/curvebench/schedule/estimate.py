"""How long runs will take, judged by what is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from statistics import median

from curvebench.spec import RunSpec
from curvebench.store import Record

GUESS = 5.0
"""Seconds taken for a run that nothing is known of and that has no budget in seconds."""
START = 0.1
"""Seconds for starting a process and storing a record, which no record contains."""


@dataclass(frozen=True)
class Estimate:
    """Seconds by run id, and how many of them rest on nothing but a guess."""

    seconds: dict[str, float]
    guessed: int

    def total(self, jobs: int = 1) -> float:
        """Wall seconds with so many runs at a time."""
        return sum(self.seconds.values()) / jobs


def estimate(specs: Sequence[RunSpec], records: Iterable[Record]) -> Estimate:
    """Expect of each run what the nearest stored runs took: the same run, its method on the task, its task at all."""
    seen: dict[Hashable, list[float]] = defaultdict(list)
    for record in records:
        if record.seconds.total is not None:
            for kind in _kinds(record.spec):
                seen[kind].append(record.seconds.total)
    seconds: dict[str, float] = {}
    guessed = 0
    for spec in specs:
        known = next((seen[kind] for kind in _kinds(spec) if kind in seen), None)
        guessed += known is None
        seconds[spec.id] = START + (median(known) if known else spec.budget.seconds or GUESS)
    return Estimate(seconds, guessed)


def _kinds(spec: RunSpec) -> Iterator[Hashable]:
    """What the run is alike to, the nearest first."""
    place = (spec.task, spec.scale, spec.framework, spec.device)
    budget = astuple(spec.budget)  # a smoke run says nothing about a real one
    yield spec.id
    yield (*place, *budget, spec.method)
    yield (*place, *budget)
