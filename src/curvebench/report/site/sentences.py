"""The overview in words: what was compared, on what machine, how often, and what may be concluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from curvebench.report.groups import EXCLUDED
from curvebench.report.notes import runs as counted
from curvebench.report.ranking import TaskRanking
from curvebench.report.site.model import Summary
from curvebench.report.site.paper_model import Paper
from curvebench.report.tables import TaskTable
from curvebench.spec import Status
from curvebench.statistics import power
from curvebench.store import Record

NAMED = 5
"""Titles that a sentence lists before it says how many more there are."""


def summary(
    records: Sequence[Record],
    made: Sequence[TaskTable],
    orders: Sequence[TaskRanking | None],
    papers: Sequence[Paper],
) -> Summary:
    """The overview of a report; ``orders`` belong to ``made``."""
    verdicts: Counter[str] = Counter()
    for paper in papers:
        verdicts.update(paper.counts)
    statuses = Counter(record.status for record in records)
    return Summary(
        lead=lead(made),
        measured=measured(records),
        conclusions=[sentence for table, order in zip(made, orders, strict=True) for sentence in says(table, order)],
        caveats=list(caveats(made)),
        runs=len(records),
        statuses={str(status): statuses[status] for status in Status if statuses[status]},
        verdicts=dict(sorted(verdicts.items())),
    )


def lead(made: Sequence[TaskTable]) -> str:
    """What was compared, how often, in one sentence."""
    rows = [one.row for table in made for one in table.rows]
    if not rows:
        return "No records: nothing was compared."
    methods = {row.method for row in rows}
    frameworks = sorted({row.framework for row in rows}, reverse=True)
    titles = list(dict.fromkeys(table.title for table in made))
    seeds = sorted({len({r.spec.seed_block for r in row.records}) for row in rows})
    n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"{number(len(methods), 'method')} in {' and '.join(frameworks)} on {number(len(titles), 'task')} "
        f"({some(titles, '; ')}): {counted(sum(len(row.records) for row in rows))}, {n} seed"
        f"{'' if seeds == [1] else 's'} a row."
    )


def measured(records: Iterable[Record]) -> str:
    """Where and when."""
    machines, days, versions = Counter[str](), set(), set()
    for record in records:
        machines[machine(record)] += 1
        days.add(record.provenance.started[:10])
        found = record.provenance.versions
        versions |= {f"{name} {found[name]}" for name in ("torch", "jax") if name in found}
    if not days:
        return ""
    where = [name for name, _ in machines.most_common()]
    when = min(days) if len(days) == 1 else f"{min(days)} to {max(days)}"
    return f"Measured {when} on {some(where, ' and ')}" + (f", {', '.join(sorted(versions))}." if versions else ".")


def machine(record: Record) -> str:
    """A machine in a few words: processor, cores, memory, accelerators."""
    found = record.provenance.machine
    cores = found.get("cores")
    count = cores.get("available") or cores.get("logical") if isinstance(cores, dict) else cores
    memory = found.get("memory_gib")
    parts = [str(found.get("cpu") or "an unknown processor")]
    parts += [number(int(count), "core")] if count else []
    parts += [f"{memory:g} GiB"] if isinstance(memory, (int, float)) else []
    gpus = [str(g.get("name", g)) if isinstance(g, dict) else str(g) for g in found.get("gpus") or ()]
    return ", ".join([*parts, *gpus])


def says(table: TaskTable, order: TaskRanking | None) -> Iterable[str]:
    """What may be said of one table: the best within noise, and what its seeds allow."""
    best = [f"{one.row.label} ({one.row.framework})" for one in table.rows if one.best]
    label = table.group.newest.metric.label
    if not best:
        yield f"{table.title}: no row has a {label} that could be compared."
        return
    if len(best) == 1:
        first = f"{table.title}: {best[0]} has the best {label}, outside the noise of the others"
    else:
        first = (
            f"{table.title}: {len(best)} of {len(table.rows)} rows are within noise of the best {label}: {some(best)}"
        )
    if order is None:
        yield f"{first}; there is no other row to compare with."
        return
    n = f"{order.seeds} seed{'' if order.seeds == 1 else 's'}"
    if order.word in ("nothing", "look"):
        yield f"{first}; with {n} no difference is claimed (that takes {power.CLAIM})."
        return
    axis = order.axes[-1]
    said = f"{len(axis.claimed)} of {len(axis.pairs)} pairs differ in {axis.label} (Holm, 5 %)"
    rank = "" if order.word == "rank" else f"; a ranking takes {power.RANK} seeds"
    yield f"{first}; with {n}, {said}{rank}."


def caveats(made: Sequence[TaskTable]) -> Iterable[str]:
    """What to keep in mind before any number is quoted."""
    records = [record for table in made for one in table.rows for record in one.row.records]
    lost = sum(record.status is Status.DIVERGED for record in records)
    out = sum(record.status in EXCLUDED for record in records)
    busy = sum(record.provenance.busy is not None for record in records)
    older = sum(table.group.left_out + sum(one.row.left_out for one in table.rows) for table in made)
    if lost:
        yield (
            f"{counted(lost)} diverged: a row with such a run is not called best, and the run counts as never reaching "
            "a target."
        )
    if out:
        yield f"{counted(out)} ended unsupported, out of memory or crashed: no mean contains them."
    if busy:
        yield f"During {counted(busy)} other programs used the processor: those seconds are doubtful."
    if older:
        yield f"Older versions of the code or the cards made {counted(older)}: listed, but in no number."
    for table in made:
        if table.blank:
            yield f"{table.title}: no times, for {table.blank}."


def number(count: int, noun: str) -> str:
    """``1 task`` or ``4 tasks``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def some(words: Sequence[str], between: str = ", ") -> str:
    """The first few, and how many more."""
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return between.join(words[:NAMED]) + more
