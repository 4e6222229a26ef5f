"""What stands under a table: how to read it, where its numbers come from, and what it does not show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from curvebench import machine
from curvebench.report.groups import EXCLUDED, Group, Row
from curvebench.report.numbers import plain, short
from curvebench.spec import Status
from curvebench.statistics import Estimate
from curvebench.statistics.estimate import BOOTSTRAP_FROM
from curvebench.store import Record
from curvebench.types import Json

Pools: TypeAlias = Callable[[Record], Json | None]
"""Looks up the stored tuning that a record's hyperparameters may come from."""

Cells: TypeAlias = Mapping[str, Estimate | None]

LONGEST_REASON = 160


def notes(
    group: Group,
    rows: Sequence[tuple[Row, Cells]],
    geometric: bool,
    floor: float,
    blank: str | None,
    pools: Pools | None,
    marked: bool,
) -> list[str]:
    """All notes of one table, in reading order."""
    parts: list[Iterable[str]] = [
        how_to_read(group, rows, geometric, floor, marked),
        misses(group, rows),
        failures(group),
        hyperparameters(group, pools),
        where(group, blank),
        versions(group),
    ]
    return [note for part in parts for note in part]


def how_to_read(
    group: Group, rows: Sequence[tuple[Row, Cells]], geometric: bool, floor: float, marked: bool
) -> Iterable[str]:
    """What a cell is."""
    sizes = sorted({len(row.included) for row, _ in rows if row.included})
    if not sizes:
        yield "No run of this task ended with a result."
        return
    n = f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}"
    kind = "Student's t" if sizes[-1] < BOOTSTRAP_FROM else "Student's t below 10 seeds, BCa bootstrap from 10 on"
    yield f"Mean over seeds ({n}) ± half of its 95 % interval ({kind}); one seed has no interval."
    if geometric:
        yield (
            f"{group.newest.metric.label} spans decades: its mean is geometric, its interval was computed on log10 "
            "and is the factor after ×/÷."
        )
        values = [r.final.metric for row, _ in rows for r in row.included if r.final.metric is not None]
        if floored := sum(value < floor for value in values):
            yield f"{runs(floored)} ended below {plain(floor, 2)}, the resolution of the loss, and count as that."
    if marked:
        yield "* cannot be told from the best: the intervals overlap. A row with diverged runs is never marked."


def misses(group: Group, rows: Sequence[tuple[Row, Cells]]) -> Iterable[str]:
    """What ≥ and > mean, and which budget ended most runs."""
    if spacing := evaluation_spacing(group):
        yield f"The target is looked for at evaluations, {spacing}; costs to target are no finer than that."
    target = [cells[axis] for _, cells in rows for axis in ("step", "oracle_calls")]
    partly = any(e is not None and e.censored and not e.never for e in target)
    never = any(e is not None and e.never for e in target)
    if partly:
        yield "≥: some seeds missed the target; restricted mean, each miss counted as what it consumed: a lower bound."
    if never:
        yield "> : no seed reached the target; mean of what was consumed, which the truth exceeds."
    ended = Counter(ended_by(r) for r in group.records if r.status in (Status.BUDGET, Status.TIMEOUT))
    if ended:
        which, count = sorted(ended.items(), key=lambda item: (-item[1], item[0]))[0]
        total = sum(ended.values())
        most = "it" if total == 1 else "all" if count == total else f"most ({count})"
        yield f"{runs(total)} missed the target; {most} ended at {which}."
    diverged = [r for r in group.records if r.status is Status.DIVERGED]
    if diverged:
        total = sum(len(row.included) for row, _ in rows)
        yield (
            f"Diverged: {len(diverged)} of {total} ({100 * len(diverged) / total:.0f} %): {who(diverged)}. "
            "They never reach, stay at risk to the end of every axis and have no final value."
        )


def evaluation_spacing(group: Group) -> str:
    """``every 10 steps``, or empty where no run has two evaluations."""
    gaps = {b - a for r in group.records for a, b in pairwise(r.curve.step[:-1])}  # the last may come early
    if not gaps:
        return ""
    least, most = min(gaps), max(gaps)
    return f"every {least} step{'' if least == 1 else 's'}" if least == most else f"every {least} to {most} steps"


def ended_by(record: Record) -> str:
    """Which budget a miss ended on."""
    limits = record.spec.budget
    if record.status is Status.TIMEOUT:
        return "the timeout"
    if record.consumed.step is not None and record.consumed.step >= limits.steps:
        return f"the budget of {limits.steps} steps"
    if limits.seconds is not None:
        return f"the budget of {short(limits.seconds)} seconds"
    return "the budget"


def failures(group: Group) -> Iterable[str]:
    """Runs that enter no mean, with their reasons, and what was replaced by newer versions."""
    for status in Status:
        if status not in EXCLUDED:
            continue
        found = [r for r in group.records if r.status is status]
        if found:
            yield f"Excluded from means, {str(status).replace('_', ' ')}: {len(found)} ({'; '.join(reasons(found))})."
    left_out = group.left_out + sum(row.left_out for row in group.rows)
    if left_out:
        yield f"{runs(left_out)} of older versions of the code or of a card left out."


def reasons(records: Sequence[Record]) -> list[str]:
    """``who: why``, equal reasons together, at most four."""
    by_reason: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_reason[" ".join(record.reason.split())].append(record)
    ranked = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    out = [f"{who(members)}: {clipped(reason)}" for reason, members in ranked[:4]]
    return [*out, f"{len(ranked) - 4} more reasons"] if len(ranked) > 4 else out


def who(records: Sequence[Record]) -> str:
    """``adam torch 2, sgd jax 1``: methods and frameworks with the number of runs."""
    count = Counter(f"{r.spec.method} {r.spec.framework}" for r in records)
    return ", ".join(f"{name} {k}" for name, k in sorted(count.items()))


def clipped(reason: str) -> str:
    """A reason that fits under a table, without its full stop."""
    reason = reason.rstrip(".") or "no reason given"
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…"


def hyperparameters(group: Group, pools: Pools | None) -> Iterable[str]:
    """Where the hyperparameters come from, and from how large a pool."""
    by_source: defaultdict[str, set[str]] = defaultdict(set)
    sizes: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for row in group.rows:
        first = row.records[0]
        by_source[first.spec.source].add(row.method)
        pool = pools(first) if pools and first.spec.source == "tuned" else None
        if pool is not None and pool["hyperparameters"].items() <= dict(row.hyperparameters).items():
            sizes[str(pool["pool"]), int(pool["trials"])].add(row.method)
    meaning = {"tuned": "tuned", "card": "the method cards' defaults", "given": "given on the command line"}
    several = len(by_source) > 1
    for source, methods in sorted(by_source.items()):
        text = f"Hyperparameters: {meaning.get(source, source)}"
        if source == "tuned" and sizes:
            trials = sorted({k for _, k in sizes})
            names = sorted({name for name, _ in sizes})
            text += f", {' or '.join(map(str, trials))} trials per method, chosen on validation"
            text += f" (pool {names[0]})" if len(names) == 1 else f" ({len(names)} pools)"
        yield text + (f" ({', '.join(sorted(methods))})." if several else ".")


def where(group: Group, blank: str | None) -> Iterable[str]:
    """Which machine, how many threads, alone or not; or why the time columns are blank."""
    measured = [r for row in group.rows for r in row.included] or list(group.records)
    if blank:
        yield f"Time columns are blank: {blank}."
    machines = Counter(machine.describe(r.provenance.machine) for r in measured)
    what = "; ".join(name for name, _ in machines.most_common(3))
    device = group.setting[2]
    threads = sorted({r.provenance.threads for r in measured if r.provenance.threads is not None})
    concurrent = sorted({r.provenance.concurrent for r in measured})
    alone = "one run at a time" if concurrent == [1] else f"{listed(concurrent)} runs at a time"
    yield f"Machine: {what}; device {device}, {group.setting[3]}, {listed(threads) or '?'} threads, {alone}."
    busy = [r for r in measured if r.provenance.busy]
    if busy and not blank:
        why = Counter(map(_busy, busy)).most_common(1)[0][0]
        yield f"Times are doubtful in {runs(len(busy))} of {len(measured)}: {why}."
    unknown = sorted({name for r in measured if r.work is not None for name in r.work.unknown})
    if unknown:
        yield f"Gradient-equivalents enter {listed(unknown)} as one flop per element: no formula is known."
    how = Counter(r.memory.how for r in measured if r.memory.how and r.memory.peak_bytes is not None)
    if how:
        yield f"Peak memory: {'; '.join(sorted(h.rstrip('.') for h in how))}."
    if one_sided := sorted({r.title.method for r in group.records if not r.title.twin}):
        yield f"Not the same algorithm in torch and jax, so two methods each: {', '.join(one_sided)}."


def _busy(record: Record) -> str:
    """Why a run's times are doubtful, without its own figure, so that runs can be counted together."""
    words = record.provenance.busy or ""
    parts = ("other processes used more than a tenth of its cores" if "other processes" in words else "",
             "the host withheld more than a twentieth of its cores" if "withheld" in words else "")  # fmt: skip
    return " and ".join(p for p in parts if p) or words


def versions(group: Group) -> Iterable[str]:
    """When, with which versions and by which command."""
    days = sorted({r.provenance.started[:10] for r in group.records})
    dates = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for record in group.records:
        for package, version in record.provenance.versions.items():
            seen[package].add(version)
    packages = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(seen.items()))
    yield f"Measured {dates}" + (f" with {packages}." if packages else ".")
    commands = Counter(r.provenance.command for r in group.records)
    first = commands.most_common(1)[0][0]
    yield f"Command: `{first}`" + (f" and {len(commands) - 1} others." if len(commands) > 1 else "")


def runs(count: int) -> str:
    """``1 run`` or ``5 runs``."""
    return f"{count} run{'' if count == 1 else 's'}"


def listed(values: Sequence[object]) -> str:
    """``1, 2 or 4``."""
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else ""
