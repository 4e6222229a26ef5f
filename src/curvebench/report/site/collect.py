"""Records in, the whole report out: a pure function, the same records give the same report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curvebench import __version__
from curvebench.report import ranking
from curvebench.report.build import pools_in
from curvebench.report.site import from_papers, from_records, from_scores, from_tables, sentences
from curvebench.report.site.model import SCHEMA, Pair, Report
from curvebench.report.style import looks
from curvebench.report.tables import TaskTable, tables
from curvebench.store import Record


@dataclass(frozen=True)
class Collected:
    """The report, and the tables and records whose curves the HTML shows beside it."""

    report: Report
    tables: tuple[TaskTable, ...]
    records: tuple[Record, ...]


def collect(records: Sequence[Record], tuned: Path, *, study: str | None = None) -> Collected:
    """Make the report of some records.

    Args:
        records: of any tasks; only these are shown.
        tuned: where the tuning pools are.
        study: what the records belong to.
    """
    pools = pools_in(tuned)
    made = tables(records, pools)
    orders = [ranking.ranking(table.group, records) for table in made]
    papers = from_papers.judged(records)
    named: dict[str, list[str]] = {}
    for paper in papers:
        for method in paper.methods:
            named.setdefault(method, []).append(paper.id)
    runs, environments = from_records.runs(records, made)
    report = Report(
        schema=SCHEMA,
        curvebench=__version__,
        study=study,
        summary=sentences.summary(records, made, orders, papers),
        methods=from_records.methods(records, looks(records), named),
        tasks=[from_tables.task(table, order) for table, order in zip(made, orders, strict=True)],
        pair_columns=list(Pair._fields),
        profiles=from_scores.profiles(records, pools),
        tuning=from_scores.tunings(tuned, {table.group.setting[0] for table in made}),
        papers=papers,
        environments=environments,
        runs=runs,
    )
    return Collected(report, tuple(made), tuple(records))
