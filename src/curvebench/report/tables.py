"""One table per task: every method's final metric, what it cost to reach the target, and the doubt about each number.

A table is a pure function of records (and of the tuning pools that its hyperparameters came from): the same records
give the same table, digit for digit, on any machine.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curvebench.errors import MissingPackageError
from curvebench.report.groups import Group, Row, groups
from curvebench.report.notes import Pools, listed, notes
from curvebench.spec import Status
from curvebench.statistics import Estimate, interval, to_target, within_noise
from curvebench.store import Axes, Record
from curvebench.types import Json

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("seconds", "step_ms")
"""Columns that say something about the machine, and nothing if the records come from several."""

MIB = 2.0**20
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}


@dataclass(frozen=True)
class TableRow:
    """One row: its runs and an estimate per column (None: nothing to say)."""

    row: Row
    estimates: dict[str, Estimate | None]
    reached: int
    best: bool

    @property
    def statuses(self) -> dict[str, int]:
        """How many runs ended how, in the order of :class:`Status`."""
        count = Counter(record.status for record in self.row.records)
        return {str(status): count[status] for status in Status if count[status]}


@dataclass(frozen=True)
class TaskTable:
    """A table of one task.

    Args:
        group: where its records are.
        rows: sorted by the final metric, best first; rows without one at the end.
        columns: names of the estimates, in order.
        headings: what to print over each column of :attr:`columns`.
        blank: why the time columns are blank, or None.
        notes: what is to be read under the table, sentences.
    """

    group: Group
    rows: tuple[TableRow, ...]
    columns: tuple[str, ...]
    headings: dict[str, str]
    blank: str | None
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The task's title, with what is special about this table."""
        return self.group.newest.title.task

    @property
    def frame(self) -> pd.DataFrame:
        """One line per row: names, counts, and for each column its mean, ``_low``, ``_high``, ``_n``, ``_misses``."""
        try:
            import pandas as pd  # half a second that only tables need
        except ImportError as error:
            raise MissingPackageError("pandas", "report", "a table as a data frame") from error
        return pd.DataFrame([flat(row, self) for row in self.rows])

    def to_json(self) -> Json:
        """The table in plain JSON types, for scripts."""
        task, scale, device, dtype, steps, seconds, cost, schedule = self.group.setting
        metric = self.group.newest.metric
        return {
            "task": task,
            "title": self.title,
            "scale": scale,
            "device": device,
            "dtype": dtype,
            "budget": {"steps": steps, "seconds": seconds, "gradient_equivalents": cost},
            "schedule": schedule,
            "metric": {"name": metric.name, "label": metric.label, "direction": metric.direction},
            "target": metric.target,
            "rows": [{k: none_if_nan(v) for k, v in flat(row, self).items()} for row in self.rows],
            "notes": list(self.notes),
        }


def tables(records: Iterable[Record], pools: Pools | None = None) -> list[TaskTable]:
    """Make one table per task (and scale, device, budget) that the records have.

    Args:
        records: of any tasks, in any order.
        pools: looks up the stored tuning of a record, so that notes can tell its size; without it they say "tuned".
    """
    return [table(group, pools) for group in groups(records)]


def table(group: Group, pools: Pools | None = None) -> TaskTable:
    """Make the table of one group of records."""
    newest = group.newest
    blank = why_blank(group)
    floor = resolution(group)
    geometric = spans_decades(group)
    columns = ["final", *(["test"] if any(r.final.test is not None for r in group.records) else [])]
    counted = ["gradient_equivalents"] if any(r.work is not None for r in group.records) else []
    columns += ["seconds", "step", "oracle_calls", *counted, "step_ms", "memory_mib"]
    estimates = []
    for row in group.rows:
        cells: dict[str, Estimate | None] = {
            "final": final(row, geometric, floor),
            "test": over(row, lambda r: r.final.test),
            "seconds": crossing(row, "seconds"),
            "step": crossing(row, "step"),
            "oracle_calls": crossing(row, "oracle_calls"),
            "gradient_equivalents": crossing(row, "gradient_equivalents"),
            "step_ms": over(row, lambda r: scaled(r.seconds.step.median if r.seconds.step else None, 1e3)),
            "memory_mib": over(row, lambda r: scaled(r.memory.peak_bytes, 1.0 / MIB)),
        }
        estimates.append({c: None if blank and c in TIMES else cells[c] for c in columns})
    finals = [None if diverged(row) else cells["final"] for row, cells in zip(group.rows, estimates, strict=True)]
    best = within_noise(finals, newest.metric.direction)
    made = [
        TableRow(row, cells, sum(map(has_reached, row.included)), mark)
        for row, cells, mark in zip(group.rows, estimates, best, strict=True)
    ]
    sign = 1.0 if newest.metric.direction == "min" else -1.0
    made.sort(key=lambda r: math.inf if (e := r.estimates["final"]) is None else sign * e.mean)
    mean = ", geometric mean" if geometric else ""
    headings = {
        "final": f"{newest.metric.label}{mean}",
        "test": f"test {newest.metric.name}",
        "seconds": "seconds to target",
        "step": "steps to target",
        "oracle_calls": "oracle calls to target",
        "gradient_equivalents": "gradient-equivalents to target",
        "step_ms": "ms per step",
        "memory_mib": "peak MiB",
    }
    text = notes(group, [(r.row, r.estimates) for r in made], geometric, floor, blank, pools, any(best))
    return TaskTable(group, tuple(made), tuple(columns), headings, blank, tuple(text))


def final(row: Row, geometric: bool, floor: float) -> Estimate | None:
    """The final metric over the seeds that have a finite one; a gap below ``floor`` counts as ``floor``."""
    values = [v for r in row.included if r.status is not Status.DIVERGED and (v := r.final.metric) is not None]
    if not values:
        return None
    return interval([max(v, floor) for v in values], geometric=True) if geometric else interval(values)


def over(row: Row, read: Callable[[Record], float | None]) -> Estimate | None:
    """Estimate one number per included run, where the run has it."""
    values = [value for record in row.included if (value := read(record)) is not None]
    return interval(values) if values else None


def crossing(row: Row, axis: str) -> Estimate | None:
    """What the target cost on one axis: hits as they are, misses censored at what they consumed.

    A run that diverged never reaches, so it stays at risk to the end of the axis: to the budget, or, where the axis
    has none, as far as the row's other runs went.
    """
    hits: list[float] = []
    misses: list[float] = []
    diverged_runs = 0
    for record in row.included:
        if record.metric.target is None:
            return None
        if record.status is Status.DIVERGED:
            diverged_runs += 1
            continue
        point = record.crossing if has_reached(record) else record.consumed
        value = on(point, axis)
        if value is not None:
            (hits if has_reached(record) else misses).append(value)
    end = max([*hits, *misses], default=None) if (limit := budget(row, axis)) is None else limit
    if end is None:
        return None
    misses += [end] * diverged_runs
    return to_target(hits, misses) if hits or misses else None


def has_reached(record: Record) -> bool:
    """Whether the target was met; a run that diverged afterwards never reached it."""
    return record.crossing is not None and record.status is not Status.DIVERGED


def diverged(row: Row) -> bool:
    """Whether any seed diverged: such a row is not called best, whatever the others did."""
    return any(record.status is Status.DIVERGED for record in row.records)


def budget(row: Row, axis: str) -> float | None:
    """The row's budget on an axis, or None if the axis has none."""
    limits = row.records[0].spec.budget
    return {"step": float(limits.steps), "seconds": limits.seconds}.get(axis)


def on(point: Axes | None, axis: str) -> float | None:
    """One coordinate of a point."""
    value: float | None = getattr(point, axis) if point is not None else None
    return value


def why_blank(group: Group) -> str | None:
    """Why times in this table cannot be compared, or None if they can."""
    timed = [record for row in group.rows for record in row.included]
    if reused := sum(record.reused for record in timed):
        return f"{reused} of {len(timed)} curves were measured on another machine"
    if (count := len({record.keys.machine for record in timed})) > 1:
        return f"the runs were measured on {count} different machines"
    concurrent = sorted({record.provenance.concurrent for record in timed})
    if len(concurrent) > 1:
        return f"the runs shared their machine with different numbers of others ({listed(concurrent)} runs at a time)"
    threads = sorted({record.provenance.threads for record in timed if record.provenance.threads is not None})
    if len(threads) > 1:
        return f"the runs had different numbers of threads ({listed(threads)})"
    return None


def spans_decades(group: Group) -> bool:
    """A gap to the optimum lives on a logarithmic scale; so do its mean and interval."""
    metric = group.newest.metric
    return metric.name == "gap" and metric.direction == "min"


def resolution(group: Group) -> float:
    """The smallest gap that the number format can tell from zero: machine epsilon times the size of the loss.

    The size is |f*|, or where that is 0 or unknown the first loss of a run.
    """
    newest = group.newest
    first = [abs(r.curve.loss[0]) for r in group.records if r.curve.loss and r.curve.loss[0]]
    size = abs(newest.metric.optimum or 0.0) or min(first, default=1.0)
    return EPSILON.get(newest.spec.dtype, 2.0**-52) * size


def scaled(value: float | None, by: float) -> float | None:
    """``value * by``, or None."""
    return None if value is None else value * by


def none_if_nan(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def flat(row: TableRow, table: TaskTable) -> dict[str, Any]:
    """A row as names and numbers; NaN where there is none."""
    first = row.row.records[0]
    out: dict[str, Any] = {
        "method": row.row.method,
        "title": row.row.label,
        "family": first.title.method_family,
        "framework": row.row.framework,
        "hyperparameters": ", ".join(f"{name}={value}" for name, value in row.row.hyperparameters),
        "source": first.spec.source,
        "runs": len(row.row.records),
        "n": len(row.row.included),
        "reached": row.reached,
        "within_noise_of_best": row.best,
    }
    for column in table.columns:
        e = row.estimates[column] or Estimate(math.nan, None, None, 0)
        out[column] = e.mean
        out[f"{column}_low"] = math.nan if e.low is None else e.low
        out[f"{column}_high"] = math.nan if e.high is None else e.high
        out[f"{column}_n"] = e.n
        if column in ("seconds", "step", "oracle_calls", "gradient_equivalents"):
            out[f"{column}_misses"] = e.censored
    out["status"] = " ".join(f"{name}:{count}" for name, count in row.statuses.items())
    return out
