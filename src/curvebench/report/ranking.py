"""The order of the methods on one task, and how little of it may be said: ranks with intervals, pairs, stability.

Three seeds are enough to look, five to claim a difference, ten to rank: the stronger word is refused to the weaker n.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from curvebench.report.groups import Group, Row, setting_of
from curvebench.report.numbers import plain, short
from curvebench.report.scoring import AXES, costs
from curvebench.report.tables import diverged, resolution, spans_decades, why_blank
from curvebench.spec import Status
from curvebench.statistics import power, stability
from curvebench.statistics.pairwise import Comparison, compare_all, holm
from curvebench.statistics.ranks import Ranking, rank
from curvebench.statistics.survival import LogRank, common_horizon, log_rank, pseudo_values, rate
from curvebench.store import Record
from curvebench.types import FloatArray

LABELS = {"step": "steps to target", "seconds": "seconds to target"}
LEVEL = 0.05
COLUMNS = (
    "axis",
    "method_a",
    "framework_a",
    "method_b",
    "framework_b",
    "n",
    "difference",
    "low",
    "high",
    "geometric",
    "p",
    "p_holm",
    "improvement",
    "improvement_low",
    "improvement_high",
    "logrank_p",
    "detectable",
    "larger",
)


@dataclass(frozen=True)
class Pair:
    """Two rows on one axis: the paired comparison, its Holm-adjusted p; with the best row the log-rank test too."""

    first: int
    second: int
    comparison: Comparison
    adjusted: float
    curves: LogRank | None
    detectable: float

    @property
    def larger(self) -> bool:
        """Whether the difference is larger than what the study could detect for this pair."""
        d = self.comparison.difference
        size = abs(math.log10(d.mean)) if d.geometric and d.mean > 0.0 else abs(d.mean)
        return size >= self.detectable


@dataclass(frozen=True)
class Axis:
    """The order on one axis.

    Args:
        name: ``final`` or an axis of a record's points.
        label: how tables call it.
        values: ``[seed blocks, rows]``; pseudo-values of the restricted mean to the target, or final metrics (their
            log10 where they span decades); NaN where there is none.
        ranking: of the rows.
        pairs: every two rows that have values.
        horizon: of the restricted mean; None for ``final``.
        between_seeds: Kendall's tau between seed blocks.
        geometric: differences are factors.
    """

    name: str
    label: str
    values: FloatArray
    ranking: Ranking
    pairs: tuple[Pair, ...]
    horizon: float | None
    between_seeds: stability.Agreement
    geometric: bool

    @property
    def detectable(self) -> float:
        """The smallest difference that a typical pair's spread lets this many seeds detect; NaN without pairs.

        Pairs that never differ (both at the horizon, say) have no spread to judge by.
        """
        spreads = [p.comparison.spread for p in self.pairs if p.comparison.spread > 0.0]
        return power.detectable(float(np.median(spreads)), self.ranking.n) if spreads else math.nan

    def improvement(self, row: int, other: int) -> float:
        """Probability that a run of ``row`` is better here than one of ``other``; NaN where it is not known."""
        for pair in self.pairs:
            if (pair.first, pair.second) == (row, other):
                return pair.comparison.improvement.mean
            if (pair.first, pair.second) == (other, row):
                return 1.0 - pair.comparison.improvement.mean
        return math.nan

    @property
    def claimed(self) -> tuple[Pair, ...]:
        """Pairs whose difference survives Holm's correction."""
        return tuple(p for p in self.pairs if p.adjusted < LEVEL)


@dataclass(frozen=True)
class TaskRanking:
    """The order of one task's rows on every axis that has one.

    Args:
        seeds: fewest complete seed blocks of an axis.
        halves: Kendall's tau between the metric at half of the budget and at its end.
        threads: Kendall's tau between thread counts, and the counts.
    """

    group: Group
    rows: tuple[Row, ...]
    axes: tuple[Axis, ...]
    seeds: int
    halves: float
    threads: tuple[stability.Agreement, tuple[int, ...]]

    @property
    def word(self) -> str:
        """The strongest word that the seeds carry: nothing, look, claim or rank."""
        return power.word(self.seeds)

    @property
    def title(self) -> str:
        """What this may be called."""
        task = self.group.newest.title.task
        n = f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"
        return {
            "rank": f"Ranking on {task} ({n})",
            "claim": f"Comparison on {task} ({n}: enough to claim a difference; {power.RANK} to rank)",
            "look": f"Order seen on {task} ({n}: to look; {power.CLAIM} to claim a difference, {power.RANK} to rank)",
            "nothing": f"Order seen on {task} ({n}: too few to compare; {power.LOOK} to look)",
        }[self.word]


def ranking(group: Group, records: Iterable[Record] = ()) -> TaskRanking | None:
    """Rank the rows of one table; None where fewer than two have values.

    Args:
        group: the table's records.
        records: all that were stored, so that orders at other numbers of threads can be compared with it.
    """
    rows = tuple(row for row in group.rows if row.included)
    blocks = sorted({r.spec.seed_block for row in rows for r in row.included})
    if len(rows) < 2 or not blocks:
        return None
    names = ("final", *(a for a in AXES if not (a == "seconds" and why_blank(group))))
    axes = [axis for name in names if (axis := made(group, rows, blocks, name)) is not None]
    if not axes:
        return None
    seeds = min(axis.ranking.n for axis in axes)
    return TaskRanking(group, rows, tuple(axes), seeds, halves(group, rows), over_threads(group, rows, records))


def made(group: Group, rows: Sequence[Row], blocks: Sequence[int], name: str) -> Axis | None:
    """The order on one axis; None where fewer than two rows have values there."""
    direction: Literal["min", "max"] = "min"
    horizon: float | None = None
    geometric = False
    curves: list[tuple[list[float], list[float]]] = []
    if name == "final":
        direction = group.newest.metric.direction
        geometric = spans_decades(group)
        values = finals(group, rows, blocks)
        label = group.newest.metric.label
    else:
        cells = [costs(row, name) for row in rows]
        if group.newest.metric.target is None or not any(hit for cell in cells for _, hit in cell.values()):
            return None
        arrays = [arrays_of(cell) for cell in cells]
        horizon = common_horizon([(t[np.isfinite(t)], h[np.isfinite(t)]) for t, h in arrays])
        if horizon is None or horizon <= 0.0:
            return None
        values = np.full((len(blocks), len(rows)), math.nan)
        for k, (cell, (times, hit)) in enumerate(zip(cells, arrays, strict=True)):
            if cell:
                for block, value in zip(cell, pseudo_values(times, hit, horizon), strict=True):
                    values[blocks.index(block), k] = value
            curves.append(([t for t, h in cell.values() if h], [t for t, h in cell.values() if not h]))
        label = LABELS.get(name, f"{name.replace('_', ' ')} to target")
    if np.isfinite(values).any(axis=0).sum() < 2:
        return None
    return Axis(
        name,
        label,
        values,
        rank(values, direction),
        tuple(pairs(values, direction, geometric, curves)),
        horizon,
        stability.agreement(list(values)),
        geometric,
    )


def arrays_of(cell: dict[int, tuple[float, bool]]) -> tuple[FloatArray, Any]:
    """Times and hits of one row, in the order of its blocks."""
    return np.array([t for t, _ in cell.values()]), np.array([h for _, h in cell.values()], dtype=bool)


def finals(group: Group, rows: Sequence[Row], blocks: Sequence[int]) -> FloatArray:
    """Final metrics ``[blocks, rows]``, on log10 where they span decades; none of a row of which a seed diverged."""
    values = np.full((len(blocks), len(rows)), math.nan)
    floor = resolution(group)
    for k, row in enumerate(rows):
        if diverged(row):
            continue
        for record in row.included:
            if (value := record.final.metric) is not None:
                value = math.log10(max(value, floor)) if spans_decades(group) else value
                values[blocks.index(record.spec.seed_block), k] = value
    return values


def pairs(
    values: FloatArray,
    direction: Literal["min", "max"],
    logarithms: bool,
    curves: Sequence[tuple[list[float], list[float]]],
) -> Iterable[Pair]:
    """Every two rows that have values, compared inside seed blocks, with p adjusted over all of them."""
    known = [int(k) for k in np.flatnonzero(np.isfinite(values).any(axis=0))]
    chosen = list(combinations(known, 2))
    found = compare_all(values, chosen, direction, logarithms=logarithms)
    adjusted = holm([c.p for c in found])
    means = np.nanmean(values[:, known], axis=0) if known else np.zeros(0)
    best = known[int(np.argmin(means if direction == "min" else -means))] if known else -1
    for (a, b), comparison, p in zip(chosen, found, adjusted, strict=True):
        # A log-rank test takes a millisecond: with the best row only, where the two curves are not the same.
        differ = curves and best in (a, b) and curves[a] != curves[b]
        test = log_rank(curves[a], curves[b]) if differ else None
        known_spread = math.isfinite(comparison.spread)
        least = power.detectable(comparison.spread, comparison.n) if known_spread else math.inf
        yield Pair(a, b, comparison, float(p), test, least)


def halves(group: Group, rows: Sequence[Row]) -> float:
    """Kendall's tau between the mean metric at half of the budget of steps and at the end of each run."""
    middle, end = np.full(len(rows), math.nan), np.full(len(rows), math.nan)
    for k, row in enumerate(rows):
        if diverged(row):
            continue
        both = [(m, r.final.metric) for r in row.included if (m := at_half(r)) is not None]
        if both and all(last is not None for _, last in both):
            middle[k], end[k] = (float(np.mean(column)) for column in zip(*both, strict=True))
    return stability.tau(middle, end)


def at_half(record: Record) -> float | None:
    """The metric at the last evaluation within half of the budget of steps; None before the first step."""
    found = [
        m for s, m in zip(record.curve.step, record.curve.metric, strict=True) if 0 < 2 * s <= record.spec.budget.steps
    ]
    return found[-1] if found else None


def over_threads(
    group: Group, rows: Sequence[Row], records: Iterable[Record]
) -> tuple[stability.Agreement, tuple[int, ...]]:
    """Kendall's tau between the orders of final metrics that different numbers of threads gave."""
    places = {(row.method, row.framework, row.hyperparameters): k for k, row in enumerate(rows)}
    found: dict[int, list[list[float]]] = {}
    for record in [*group.records, *records]:
        threads = record.provenance.threads
        place = places.get((record.spec.method, record.spec.framework, record.spec.hyperparameters))
        if threads is None or place is None or setting_of(record.spec) != group.setting:
            continue
        if record.status is not Status.DIVERGED and record.final.metric is not None:
            found.setdefault(threads, [[] for _ in rows])[place].append(record.final.metric)
    orders = {
        threads: np.array([float(np.mean(v)) if v else math.nan for v in lists]) for threads, lists in found.items()
    }
    return stability.agreement(list(orders.values())), tuple(sorted(orders))


def cell(axis: Axis, row: int) -> str:
    """A row's interval of ranks: ``1-3``, ``2``, or ``-``."""
    low, high = int(axis.ranking.low[row]), int(axis.ranking.high[row])
    return "-" if not axis.ranking.rank[row] or not high else f"{low}" if low == high else f"{low}-{high}"


def order(found: TaskRanking) -> list[int]:
    """Rows by their rank on the last axis that ranks most of them: calls to the target before the final metric."""
    by = max(found.axes, key=lambda axis: (int((axis.ranking.rank > 0).sum()), axis.name != "final", axis.name))
    last = len(found.rows) + 1
    return sorted(range(len(found.rows)), key=lambda k: (int(by.ranking.rank[k]) or last, k))


def grid(found: TaskRanking) -> list[list[str]]:
    """Header and rows: the intervals of ranks on every axis, the chance of being first, the share that diverged."""
    header = [
        "method",
        "framework",
        *(f"ranks by {axis.label}" for axis in found.axes),
        "first",
        "beats next",
        "diverged",
    ]
    body = []
    lead = found.axes[-1]
    places = order(found)
    for place, k in enumerate(places):
        row = found.rows[k]
        beats = lead.improvement(k, places[place + 1]) if place + 1 < len(places) else math.nan
        lost = sum(r.status is Status.DIVERGED for r in row.included)
        first = "-" if not lead.ranking.rank[k] else f"{lead.ranking.first[k]:.2f}"
        share = rate(lost, len(row.included)) if lost else None
        text = "0" if share is None else f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}]"
        body.append([row.label, row.framework, *(cell(axis, k) for axis in found.axes), first, chance(beats), text])
    return [header, *body]


def chance(value: float) -> str:
    """A probability with two digits, ``-`` where there is none."""
    return f"{value:.2f}" if math.isfinite(value) else "-"


def notes(found: TaskRanking) -> Iterable[str]:
    """How to read it, what could be seen, what may be claimed, whether the order holds."""
    lead = found.axes[-1]
    yield (
        "Ranks: the interval that holds 95 % of the ranks when seed blocks are drawn again, paired. First: the chance "
        f"of the best mean by {lead.label}. Beats next: the probability of improvement, that a run of it is "
        "better by that than one of the row below (ties half). Every pair with its p is in the CSV beside this."
    )
    for axis in found.axes:
        yield " ".join(about(axis, found.word))
    if math.isfinite(found.halves):
        yield f"Kendall's tau between the order of the metric at half of the budget and at its end: {found.halves:.2f}."
    agreement, counts = found.threads
    if agreement.pairs:
        yield f"Kendall's tau between {', '.join(map(str, counts))} threads: {agreement.tau:.2f}."
    elif counts:
        yield f"All runs had {counts[0]} threads: nothing is known about other numbers."
    if found.word in ("nothing", "look"):
        yield f"No difference is claimed with {found.seeds} seeds: that takes {power.CLAIM}."
    elif found.word == "claim":
        yield f"No ranking is claimed with {found.seeds} seeds: that takes {power.RANK}."


def about(axis: Axis, word: str) -> Iterable[str]:
    """One axis in sentences."""
    yield f"By {axis.label}:"
    if axis.horizon is not None:
        yield f"restricted mean over [0, {short(float(f'{axis.horizon:.4g}'))}], as far as every curve is known;"
    least = axis.detectable
    if math.isfinite(least):
        size = f"a factor of {plain(10.0**least)}" if axis.geometric else plain(least)
        if not axis.geometric and axis.horizon is not None:
            best = float(np.nanmin(axis.ranking.means))
            size += f" ({100.0 * least / best:.0f} % of the best)" if best > 0.0 else ""
        yield f"detectable with {axis.ranking.n} seeds (power 0.8, typical pair): {size};"
    if word in ("claim", "rank"):
        claimed = axis.claimed
        larger = sum(pair.larger for pair in claimed)
        yield (
            f"{len(claimed)} of {len(axis.pairs)} pairs differ (Holm, 5 %),"
            + f" {larger} of them by more than the study can detect;"
        )
    tau = axis.between_seeds
    yield (
        f"Kendall's tau between seeds {tau.tau:.2f} (least {tau.least:.2f}, {tau.pairs} pairs)."
        if tau.pairs
        else "one seed: no tau between seeds."
    )


def markdown(found: TaskRanking) -> str:
    """A GitHub table with its notes."""
    header, *body = grid(found)
    lines = ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *body]]
    return "\n".join([f"#### {found.title}", "", *lines, "", *(f"- {note}" for note in notes(found))]) + "\n"


def text(found: TaskRanking) -> str:
    """For a terminal or a log."""
    lines = grid(found)
    widths = [max(len(line[c]) for line in lines) for c in range(len(lines[0]))]
    body = ["  ".join(value.ljust(w) for value, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([found.title, "", *body, "", *(f"  {note}" for note in notes(found))]) + "\n"


def pairs_csv(found: TaskRanking) -> str:
    """Every pair on every axis, to twelve significant digits: the last ones depend on the order of a sum."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for axis in found.axes:
        for pair in axis.pairs:
            a, b, c = found.rows[pair.first], found.rows[pair.second], pair.comparison
            d, i = c.difference, c.improvement
            row = [
                axis.name,
                a.label,
                a.framework,
                b.label,
                b.framework,
                c.n,
                d.mean,
                d.low,
                d.high,
                axis.geometric,
                c.p,
                pair.adjusted,
                i.mean,
                i.low,
                i.high,
                pair.curves.p if pair.curves else None,
                pair.detectable,
                pair.larger,
            ]
            writer.writerow([f"{v:.12g}" if isinstance(v, float) else v for v in row])
    return out.getvalue()
