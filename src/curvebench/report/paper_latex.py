"""A paper's tables with their verdicts as LaTeX: a float per table, cells within noise of the best in bold."""

from __future__ import annotations

from collections.abc import Sequence

from curvebench.cards import PaperTable
from curvebench.report.latex import OPENING, escape, floating, number, tabular
from curvebench.report.papers import Judged, JudgedClaim, PaperReport, seen
from curvebench.statistics import within_noise


def latex(report: PaperReport) -> str:
    """All tables of a paper and its claims, a float each; reported, measured, verdict in every line.

    Bold, where less or more is better: what cannot be told from the best of its column and framework.
    """
    parts = [OPENING, "% " + " ".join(report.card.title.split())]
    parts += [paper_table(report, table) for table in report.card.tables]
    if report.claims:
        parts.append(claims(report.card.name, report.claims))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def paper_table(report: PaperReport, table: PaperTable) -> str:
    """One table of a paper: its own grid while every cell has the same verdict, else a line per cell and framework."""
    judged = report.of(table)
    caption = f"{table.place}: {table.title} ({table.unit}). {table.setup}."
    label = f"{report.card.name}-{table.id}"
    verdicts = {str(one.verdict) for one in judged}
    if len(verdicts) == 1 and all(one.measured is None for one in judged):
        return floating(grid(judged), caption, label, f"All: {escape(verdicts.pop())}.")
    units = {one.cell.unit for one in judged}
    body = [
        [
            escape(one.cell.row),
            escape(one.cell.column + (f" [{one.cell.unit}]" if len(units) > 1 else "")),
            number(one.reported),
            escape(one.framework or ""),
            number(one.seen),
            escape(str(one.verdict)),
        ]
        for one in judged
    ]
    marked = {(k, 4) for k in best(judged, table)}
    names = ["row", "column", "reported", "framework", "measured", "verdict"]
    return floating(tabular(names, body, marked, r"llrlrp{0.25\textwidth}"), caption, label, "")


def grid(judged: Sequence[Judged]) -> str:
    """The numbers as the paper prints them, nothing beside them."""
    rows = list(dict.fromkeys(one.cell.row for one in judged))
    columns = list(dict.fromkeys(one.cell.column for one in judged))
    at = {(one.cell.row, one.cell.column): number(one.reported) for one in judged}
    body = [[escape(row), *(at.get((row, column), "") for column in columns)] for row in rows]
    return tabular(["", *map(escape, columns)], body, set(), "l" + "r" * len(columns))


def best(judged: Sequence[Judged], table: PaperTable) -> set[int]:
    """Lines whose measured mean cannot be told from the best of their column and framework."""
    if table.direction == "none":
        return set()
    columns = {(one.cell.column, one.cell.unit, one.framework) for one in judged if one.measured is not None}
    found: set[int] = set()
    for column in columns:
        lines = [k for k, one in enumerate(judged) if (one.cell.column, one.cell.unit, one.framework) == column]
        if len(lines) > 1:  # alone there is nothing to be best of
            marks = within_noise([judged[k].measured for k in lines], table.direction)
            found |= {k for k, mark in zip(lines, marks, strict=True) if mark}
    return found


def claims(name: str, judged: Sequence[JudgedClaim]) -> str:
    """A paper's claims with their rules."""
    body = [
        [
            escape(f"evidence of {one.evidence}: {one.note}" if one.evidence is not None else one.claim.statement),
            escape(one.claim.rule),
            escape(one.framework or ""),
            number(seen(one.measured, one.absent)),
            escape(str(one.verdict)),
        ]
        for one in judged
    ]
    wide = r"p{0.26\textwidth}p{0.22\textwidth}lrp{0.2\textwidth}"
    names = ["claim", "rule", "framework", "measured", "verdict"]
    return floating(tabular(names, body, set(), wide), "Claims", f"{name}-claims", "")
