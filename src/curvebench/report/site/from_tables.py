"""Tables and rankings as ``report.json`` has them."""

from __future__ import annotations

import math

from curvebench.report import ranking
from curvebench.report.numbers import text
from curvebench.report.render import heading
from curvebench.report.site.model import Column, Measured, Pair, Place, RankAxis, Ranking, Row, Task
from curvebench.report.tables import TableRow, TaskTable, spans_decades
from curvebench.statistics import Estimate


def task(table: TaskTable, order: ranking.TaskRanking | None) -> Task:
    """One table with the order of its rows."""
    group = table.group
    name, scale, device, dtype, steps, seconds, equivalents, schedule = group.setting
    newest = group.newest
    return Task(
        id=group.stem,
        task=name,
        title=table.title,
        family=newest.title.task_family,
        scale=scale,
        device=device,
        dtype=dtype,
        steps=steps,
        seconds=seconds,
        gradient_equivalents=equivalents,
        schedule=schedule,
        metric=newest.metric.name,
        metric_label=newest.metric.label,
        direction=newest.metric.direction,
        logarithmic=spans_decades(group),
        target=newest.metric.target,
        heading=heading(table),
        blank=table.blank,
        left_out=group.left_out,
        columns=[Column(c, table.headings[c]) for c in table.columns],
        rows=[row(one, table) for one in table.rows],
        notes=list(table.notes),
        ranking=None if order is None else ranked(order, table),
    )


def row(one: TableRow, table: TaskTable) -> Row:
    """One row of a table."""
    first = one.row.records[0]
    return Row(
        method=one.row.method,
        label=one.row.label,
        family=first.title.method_family,
        framework=one.row.framework,
        hyperparameters=dict(one.row.hyperparameters),
        source=first.spec.source,
        runs=len(one.row.records),
        n=len(one.row.included),
        reached=one.reached,
        left_out=one.row.left_out,
        best=one.best,
        statuses=one.statuses,
        estimates={c: measured(one.estimates[c]) for c in table.columns},
    )


def measured(estimate: Estimate | None) -> Measured | None:
    """An estimate with its printed form; None where there is nothing to say."""
    if estimate is None or estimate.n == 0:
        return None
    return Measured(
        finite(estimate.mean),
        finite(estimate.low),
        finite(estimate.high),
        estimate.n,
        estimate.censored,
        estimate.geometric,
        text(estimate),
    )


def ranked(order: ranking.TaskRanking, table: TaskTable) -> Ranking:
    """The order of a table's rows, in the table's own numbering."""
    place = {id(one.row): k for k, one in enumerate(table.rows)}
    index = [place[id(one)] for one in order.rows]
    agreement, counts = order.threads
    return Ranking(
        title=order.title,
        word=order.word,
        seeds=order.seeds,
        halves=finite(order.halves),
        threads=list(counts),
        threads_tau=finite(agreement.tau),
        order=[index[k] for k in ranking.order(order)],
        notes=list(ranking.notes(order)),
        axes=[axis(one, index) for one in order.axes],
    )


def axis(one: ranking.Axis, index: list[int]) -> RankAxis:
    """The order on one axis; ``index`` is the table's row of each ranked row."""
    found = one.ranking
    tau = one.between_seeds
    places = [
        Place(
            index[k],
            int(found.rank[k]),
            int(found.low[k]),
            int(found.high[k]),
            float(found.first[k]),
            finite(float(found.means[k])),
        )
        for k in found.order
    ]
    return RankAxis(
        id=one.name,
        label=one.label,
        n=found.n,
        horizon=one.horizon,
        geometric=one.geometric,
        detectable=finite(one.detectable),
        tau=finite(tau.tau),
        tau_least=finite(tau.least),
        tau_pairs=tau.pairs,
        places=places,
        pairs=[pair(p, index) for p in one.pairs],
    )


def pair(one: ranking.Pair, index: list[int]) -> Pair:
    """Two rows compared."""
    c = one.comparison
    d, i = c.difference, c.improvement
    return Pair(
        index[one.first],
        index[one.second],
        c.n,
        finite(d.mean),
        finite(d.low),
        finite(d.high),
        c.p,
        one.adjusted,
        finite(i.mean),
        finite(i.low),
        finite(i.high),
        finite(one.curves.p) if one.curves else None,
        finite(one.detectable),
        one.larger,
    )


def finite(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return float(value) if value is not None and math.isfinite(value) else None
