"""A paper's tables with their verdicts as text: for a terminal, as Markdown, as CSV, as LaTeX."""

from __future__ import annotations

import csv as csvlib
import io
from collections.abc import Sequence

from curvebench.cards import PaperTable
from curvebench.report.paper_latex import latex
from curvebench.report.papers import Judged, JudgedClaim, PaperReport, seen, to_json

FORMATS = ("terminal", "markdown", "csv", "latex")
SOURCES = {
    "paper": "the paper",
    "code": "the authors' code or repository",
    "model-card": "the authors' model card",
    "rerun": "the authors' code, run by others",
    "third-party": "a third party",
}


def render(report: PaperReport, form: str) -> str:
    """Return a paper's report in one of :data:`FORMATS`, ending with a newline.

    Raises:
        ValueError: no such format.
    """
    if form == "csv":
        return csv(report)
    if form == "latex":
        return latex(report)
    if form not in FORMATS:
        raise ValueError(f"format {form!r}: must be one of {', '.join(FORMATS)}")
    marked = form == "markdown"
    card = report.card
    about = ", ".join(filter(None, (card.authors, str(card.year or ""), card.venue, card.url)))
    parts = [f"{'## ' if marked else ''}{card.title}", about, summary(report)]
    for table in card.tables:
        parts.append(_heading(table, marked))
        parts.append(_table(table, report.of(table), marked))
    if report.claims:
        parts.append("### Claims" if marked else "Claims")
        parts.append(_claims(report.claims, marked))
    if card.not_found:
        parts.append(f"Not found, and therefore absent: {card.not_found}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(report: PaperReport) -> str:
    """``144 cells and 4 claims: 3 reproduced, 145 not run``."""
    counts = ", ".join(f"{count} {word}" for word, count in sorted(report.counts.items()))
    cells = len({judged.cell.id for judged in report.cells})
    return f"{cells} cells and {len(report.card.claims)} claims: {counts}"


def csv(report: PaperReport) -> str:
    """One line per cell and framework, then per claim, every number with all its digits."""
    content = to_json(report)
    names = [
        "paper", "kind", "id", "table", "place", "row", "column", "unit", "source", "by", "reported", "spread",
        "n_reported", "framework", "measured", "low", "high", "n", "without", "margin", "verdict", "why", "needed",
    ]  # fmt: skip
    out = io.StringIO()
    writer = csvlib.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for kind, rows in (("cell", content["cells"]), ("claim", content["claims"])):
        writer.writerows({"paper": report.card.name, "kind": kind, **row} for row in rows)
    return out.getvalue()


def _heading(table: PaperTable, marked: bool) -> str:
    page = f", page {table.page}" if table.page else ""
    who = SOURCES[table.source] + (f", {table.by}" if table.by else "")
    n = f"; n = {table.n}" if table.n else ""
    better = {"min": ", less is better", "max": ", more is better", "none": ""}[table.direction]
    first = f"{table.place}{page}: {table.title}"
    second = f"{table.unit}{better}{n}; said by {who}. {table.setup}."
    note = f" {table.note}." if table.note else ""
    return f"{'### ' if marked else ''}{first}\n{chr(10) if marked else ''}{second}{note}"


def _table(table: PaperTable, judged: Sequence[Judged], marked: bool) -> str:
    """The paper's own grid while every cell has the same verdict; else a line per cell."""
    words = {str(one.verdict) for one in judged}
    if len(words) == 1 and all(one.measured is None for one in judged):
        return f"{_grid(judged, marked)}\n\nAll: {words.pop()}"
    units = {one.cell.unit for one in judged}
    header = ["row", "column", "reported", "framework", "measured", "verdict"]
    lines = [
        [
            one.cell.row,
            one.cell.column + (f" [{one.cell.unit}]" if len(units) > 1 else ""),
            one.reported,
            one.framework or "",
            one.seen,
            str(one.verdict),
        ]
        for one in judged
    ]
    return _lines([header, *lines], marked)


def _grid(judged: Sequence[Judged], marked: bool) -> str:
    rows = list(dict.fromkeys(one.cell.row for one in judged))
    columns = list(dict.fromkeys(one.cell.column for one in judged))
    at = {(one.cell.row, one.cell.column): one.reported for one in judged}
    return _lines([["", *columns], *([row, *(at.get((row, c), "") for c in columns)] for row in rows)], marked)


def _claims(claims: Sequence[JudgedClaim], marked: bool) -> str:
    header = ["claim", "rule", "framework", "measured", "verdict"]
    lines = []
    for one in claims:
        said = one.claim.statement
        if one.evidence is not None:
            said = f"evidence of {one.evidence}: {one.note}"
        lines.append([said, one.claim.rule, one.framework or "", seen(one.measured, one.absent), str(one.verdict)])
    if marked:
        return _lines([header, *lines], marked)
    return "\n".join(
        f"{said}\n  rule: {rule}\n  {' '.join(filter(None, (framework, measured)))}: {word}"
        for said, rule, framework, measured, word in lines
    )


def _lines(grid: list[list[str]], marked: bool) -> str:
    cells = [[cell.replace("|", "\\|") if marked else cell for cell in line] for line in grid]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells]
    if not marked:
        return "\n".join("  ".join(line).rstrip() for line in padded)
    first, *rest = ["| " + " | ".join(line) + " |" for line in padded]
    return "\n".join([first, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rest])
