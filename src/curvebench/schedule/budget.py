"""A study under a budget of wall time: which runs come first, which fit, and what they will allow to conclude.

The unit is a block: all runs of a task at a seed block, for half of a comparison is none. Blocks are ordered by what
they add per second to what the study can detect: with n seeds a paired test detects ``detectable(1, n)`` spreads.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from curvebench.errors import CurvebenchError
from curvebench.schedule.study import Job
from curvebench.spec import Status
from curvebench.statistics.power import CLAIM, LOOK, RANK, detectable, word
from curvebench.store import Record

TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|min|m|h)?")
SECONDS = {None: 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
AHEAD = RANK
"""Blocks of one task that are looked ahead: two seeds alone detect next to nothing, and yet lead to three."""


@dataclass(frozen=True)
class Prospect:
    """What a task will allow to conclude: complete seed blocks within the budget, and what they detect.

    Args:
        spread: standard deviation of log10 ratios of costs to the target between two methods, NaN if nothing is known.
    """

    task: str
    seeds: int
    spread: float

    @property
    def sentence(self) -> str:
        """For a person, before the study starts."""
        verdict = {
            "nothing": f"nothing may be concluded ({LOOK} seeds to look)",
            "look": f"to look ({CLAIM} to claim a difference)",
            "claim": f"to claim a difference ({RANK} to rank)",
            "rank": "to rank",
        }[word(self.seeds)]
        size = detectable(1.0, self.seeds)
        if math.isfinite(size):
            known = math.isfinite(self.spread)
            what = f"a factor of {10.0 ** (size * self.spread):.2f}" if known else f"{size:.1f} standard deviations"
            verdict += f"; detects {what} between two methods with power 0.8"
        return f"{self.task}: {self.seeds} seed{'' if self.seeds == 1 else 's'}: {verdict}"


def seconds_of(text: str) -> float:
    """Read ``90``, ``90s``, ``30min`` or ``2h`` as seconds.

    Raises:
        CurvebenchError: it is none of these, or not positive.
    """
    match = TIME.fullmatch(text.strip())
    value = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if not value > 0.0:
        raise CurvebenchError(f"--budget {text}: must be a positive time such as 90s, 30min or 2h")
    return value


def by_information(jobs: Sequence[Job], todo: Sequence[Job], seconds: Mapping[str, float]) -> list[Job]:
    """The runs that are to be done, the most informative blocks first, a block's runs in the order given.

    Args:
        jobs: all runs of the study.
        todo: those that are not stored.
        seconds: expected, by run id.
    """
    waiting = {job.keys.run for job in todo}
    blocks: defaultdict[tuple[str, int], list[Job]] = defaultdict(list)
    for job in todo:
        blocks[job.spec.task, job.spec.seed_block].append(job)
    complete = complete_blocks(jobs, waiting)
    queues: defaultdict[str, list[list[Job]]] = defaultdict(list)
    for task, block in sorted(blocks):
        queues[task].append(blocks[task, block])
    ordered: list[Job] = []
    while queues:
        task = max(queues, key=lambda name: (gain(queues[name], complete.get(name, 0), seconds), name))
        ordered += queues[task].pop(0)
        complete[task] = complete.get(task, 0) + 1
        if not queues[task]:
            del queues[task]
    return ordered


def gain(queue: Sequence[Sequence[Job]], seeds: int, seconds: Mapping[str, float]) -> float:
    """The most that the next few blocks of a task take off what is undetectable, per second."""
    best, spent = 0.0, 0.0
    for ahead, block in enumerate(queue[:AHEAD], start=1):
        spent += sum(seconds.get(job.spec.id, 0.0) for job in block)
        best = max(best, (blindness(seeds) - blindness(seeds + ahead)) / max(spent, 1e-9))
    return best


def blindness(seeds: int) -> float:
    """What is undetectable with so many seeds, in spreads, made finite below two."""
    most = detectable(1.0, 2)
    return min(detectable(1.0, seeds), most) if seeds >= 2 else most + (2 - seeds)


def complete_blocks(jobs: Iterable[Job], waiting: Iterable[str]) -> dict[str, int]:
    """Per task how many seed blocks are stored whole."""
    open_ = set(waiting)
    whole: dict[tuple[str, int], bool] = {}
    for job in jobs:
        place = (job.spec.task, job.spec.seed_block)
        whole[place] = whole.get(place, True) and job.keys.run not in open_
    counts: dict[str, int] = {}
    for (task, _), stored in whole.items():
        counts[task] = counts.get(task, 0) + stored
    return counts


def fitting(ordered: Sequence[Job], seconds: Mapping[str, float], budget: float, jobs: int = 1) -> list[Job]:
    """As many of the first runs as are expected to end within the budget, with so many at a time."""
    out, spent = [], 0.0
    for job in ordered:
        spent += seconds.get(job.spec.id, 0.0) / jobs
        if spent > budget:
            break
        out.append(job)
    return out


def prospects(
    jobs: Sequence[Job], todo: Sequence[Job], chosen: Sequence[Job], records: Iterable[Record]
) -> list[Prospect]:
    """What each task will allow to conclude once ``chosen`` of ``todo`` are done."""
    done = {job.keys.run for job in chosen}
    left = [job.keys.run for job in todo if job.keys.run not in done]
    spreads = spread(records)
    counts = complete_blocks(jobs, left)
    return [Prospect(task, seeds, spreads.get(task, math.nan)) for task, seeds in counts.items()]


def spread(records: Iterable[Record]) -> dict[str, float]:
    """Per task the median, over pairs of methods, of the spread of log10 ratios of oracle calls to the target."""
    values: defaultdict[str, defaultdict[tuple[str, str], dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        calls = record.crossing.oracle_calls if record.crossing and record.status is not Status.DIVERGED else None
        if calls:
            spec = record.spec
            values[spec.task][spec.method, spec.framework][spec.seed_block] = math.log10(calls)
    out = {}
    for task, methods in values.items():
        found = []
        for a, b in combinations(methods.values(), 2):
            common = sorted(a.keys() & b.keys())
            if len(common) >= 2 and (s := float(np.std([a[k] - b[k] for k in common], ddof=1))) > 0.0:
                found.append(s)
        if found:
            out[task] = float(np.median(found))
    return out
