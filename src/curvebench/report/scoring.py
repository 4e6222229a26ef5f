"""One score per method over the tasks of a set of records: the censored performance profile, with its doubt.

A cell is a (method, framework) on a task: its seed blocks' costs to the shared target on one axis. Divergence stays at
risk to the end of the axis; unsupported, out-of-memory and crashed runs are absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from curvebench.errors import StoreError
from curvebench.report.groups import Group, Row, groups
from curvebench.report.notes import Pools
from curvebench.report.tables import has_reached, on, why_blank
from curvebench.spec import Status
from curvebench.statistics import algoperf
from curvebench.statistics.profiles import Scores, censored
from curvebench.store import Axes, Record
from curvebench.types import BoolArray, FloatArray, Json

AXES = tuple(f.name for f in fields(Axes))
"""What costs are counted in: whatever a record's points have."""

MANY = 500


@dataclass(frozen=True)
class Profile:
    """Scores of the methods of some records on one axis.

    Args:
        methods: ``(method, framework)`` with the title that tables use ``[m]``.
        tasks: stems of the tables ``[T]``.
        plain: AlgoPerf's score of medians over seeds, a miss infinite ``[m]``.
        scores: ours.
        seeds: fewest seed blocks of a cell that has any.
        notes: what is to be read with it, sentences.
    """

    axis: str
    methods: tuple[tuple[str, str, str], ...]
    tasks: tuple[str, ...]
    plain: FloatArray
    scores: Scores
    seeds: int
    notes: tuple[str, ...]


def profile(
    records: Iterable[Record],
    axis: str,
    pools: Pools | None = None,
    draws: int | None = None,
    *,
    fixed_tasks: bool = False,
) -> Profile:
    """Score every method on every task that has a target.

    Args:
        records: of any tasks; of each task the largest table counts.
        axis: what costs are counted in.
        pools: looks up stored tuning, so that it is repeated too.
        draws: of the bootstrap; None: 1000, or 400 of more than :data:`MANY` cells, whose bands are smoother.
        fixed_tasks: the tasks are all that is asked about, not a sample of more.

    Raises:
        StoreError: an unknown axis, no record with a target, or an axis on which these records cannot be compared.
    """
    if axis not in AXES:
        raise StoreError(f"--axis {axis}: must be one of {', '.join(AXES)}")
    tables = [g for g in largest(groups(records)) if g.newest.metric.target is not None]
    if not tables:
        raise StoreError("no record of a task with a target: nothing to score")
    if axis == "seconds":
        for group in tables:
            if blank := why_blank(group):
                raise StoreError(f"{group.stem}: seconds cannot be compared: {blank}; choose another --axis")
    names: dict[tuple[str, str], str] = {}
    chosen: list[dict[tuple[str, str], Row]] = []
    for group in tables:
        rows = {(row.method, row.framework): row for row in sorted(group.rows, key=precedence)}
        chosen.append(rows)
        for key, row in rows.items():
            names.setdefault(key, row.records[0].title.method)
    methods = sorted(names)
    blocks = sorted({r.spec.seed_block for rows in chosen for row in rows.values() for r in row.included})
    tuned = [[trials(rows[key], axis, pools) if key in rows else () for key in methods] for rows in chosen]
    depth = max((len(found) for line in tuned for found in line), default=0) or 1
    shape = (len(methods), len(tables), len(blocks), depth)
    times, hit = np.full(shape, math.nan), np.zeros(shape, bool)
    order = np.zeros(shape)
    for t, rows in enumerate(chosen):
        for m, key in enumerate(methods):
            if key in rows:
                fill(times[m, t], hit[m, t], order[m, t], rows[key], blocks, axis, tuned[t][m])
    kept = ~np.isnan(times).all(axis=(0, 1, 3))
    times, hit, order = times[:, :, kept], hit[:, :, kept], order[:, :, kept]
    if times.size == 0:
        raise StoreError(f"no run was measured in {axis}: choose another --axis")
    draws = draws or (1000 if len(methods) * len(tables) <= MANY else 400)
    scores = censored(
        times, hit, order if depth > 1 else None, draws=draws, paired=True, resample_tasks=not fixed_tasks
    )
    first = np.zeros((*times.shape[:3], 1))
    medians = algoperf.time_to_target(times[..., :1], hit[..., :1], first)
    stems = [group.stem for group in tables]
    plain = algoperf.scores(medians, stems, stems)
    seeds = min(int(n) for line in (~np.isnan(times[..., 0])).sum(axis=2) for n in line if n)
    retuned = sum(bool(found) for line in tuned for found in line)
    return Profile(
        axis,
        tuple((*key, names[key]) for key in methods),
        tuple(stems),
        plain,
        scores,
        seeds,
        tuple(notes(times, methods, stems, retuned, fixed_tasks)),
    )


def largest(found: Sequence[Group]) -> list[Group]:
    """The main table of each task: smaller ones are other budgets or devices."""
    seen: dict[str, Group] = {}
    for group in found:
        seen.setdefault(group.setting[0], group)
    return list(seen.values())


def precedence(row: Row) -> tuple[bool, int, str]:
    """Of several settings of a method the one that counts comes last: tuned, then with most runs, then the newest."""
    return (row.records[0].spec.source == "tuned", len(row.included), max(r.provenance.started for r in row.records))


def costs(row: Row, axis: str) -> dict[int, tuple[float, bool]]:
    """Per seed block the cost to the target and True, or what was consumed and False; infinite where it diverged."""
    out = {}
    for record in row.included:
        if record.status is Status.DIVERGED:
            out[record.spec.seed_block] = (math.inf, False)
            continue
        reached = has_reached(record)
        value = on(record.crossing if reached else record.consumed, axis)
        if value is not None:
            out[record.spec.seed_block] = (float(value), reached)
    return out


def fill(
    times: FloatArray,
    hit: BoolArray,
    order: FloatArray,
    row: Row,
    blocks: Sequence[int],
    axis: str,
    pool: Sequence[tuple[float, bool]],
) -> None:
    """Write the costs of one cell ``[blocks, trials]``.

    Trial 0 is the winner of the pool, as it ran in the study. Trial k is what trial k's hyperparameters would have
    made of each block: the block's cost times the ratio of trial k's cost to the winner's in the pool.
    """
    for block, (value, reached) in costs(row, axis).items():
        place = blocks.index(block)
        for k, (ratio, won) in enumerate(pool or ((1.0, True),)):
            times[place, k] = value * ratio if won or not math.isfinite(value) else value
            hit[place, k] = reached and won
            order[place, k] = k


def trials(row: Row, axis: str, pools: Pools | None) -> tuple[tuple[float, bool], ...]:
    """The pool of a cell: per trial, best validation metric first, its cost over the winner's and whether it reached.

    Empty where the pool is not stored, does not say where its trials crossed the target, or its winner never did.
    """
    first = row.records[0]
    pool: Json | None = pools(first) if pools and first.spec.source == "tuned" else None
    if pool is None or not pool["hyperparameters"].items() <= dict(row.hyperparameters).items():
        return ()
    sign = 1.0 if first.metric.direction == "min" else -1.0
    runs = [r for r in pool["runs"] if "crossing" in r]
    if len(runs) != len(pool["runs"]) or not runs:
        return ()
    runs.sort(key=lambda r: math.inf if r["metric"] is None else sign * r["metric"])
    own = (runs[0]["crossing"] or {}).get(axis)
    if not own:
        return ()
    found = [(r["crossing"] or {}).get(axis) for r in runs]
    return tuple((value / own, True) if value else (1.0, False) for value in found)


def notes(
    times: FloatArray, methods: Sequence[object], stems: Sequence[str], retuned: int, fixed: bool
) -> Iterable[str]:
    """What a score leaves unsaid."""
    absent = int(np.isnan(times).all(axis=(2, 3)).sum())
    if absent:
        yield f"{absent} of {len(methods) * len(stems)} cells have no run: they score 0, as a miss does."
    if len(stems) < 5 and not fixed:
        yield (
            f"{len(stems)} tasks are few to draw again: their choice moves the intervals most "
            "(--fixed-tasks: these tasks alone)."
        )
    if retuned:
        yield f"Tuning repeated in {retuned} cells: their stored pools were drawn again."
    else:
        yield "Tuning was not repeated: no stored pool says where its trials crossed the target."
