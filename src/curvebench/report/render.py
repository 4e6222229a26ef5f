"""A table as text: for a terminal, as Markdown, as CSV, as LaTeX."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from curvebench.report.latex import OPENING, escape, floating, number, stacked, tabular
from curvebench.report.numbers import short, text
from curvebench.report.tables import TableRow, TaskTable

FORMATS = ("terminal", "markdown", "csv", "latex")
LEFT = frozenset({0, 1, -1})
"""Columns of words: method, framework, status."""

EXPENDABLE = ("peak", "oracle calls", "ms per", "steps", "test", "status", "seconds", "reached")
"""How headings begin, in the order in which a narrow terminal does without them."""


def render(table: TaskTable, form: str) -> str:
    """Return a table in one of :data:`FORMATS`, ending with a newline.

    Raises:
        ValueError: no such format.
    """
    if form == "terminal":
        stream = io.StringIO()
        terminal(table, stream)
        return stream.getvalue()
    if form == "markdown":
        return markdown(table)
    if form == "csv":
        return csv(table)
    if form == "latex":
        return latex(table)
    raise ValueError(f"format {form!r}: must be one of {', '.join(FORMATS)}")


def heading(table: TaskTable) -> str:
    """The line over a table: what was to be reached, within which budget."""
    _, scale, _, _, steps, seconds, cost, schedule = table.group.setting
    metric = table.group.newest.metric
    sign = "≤" if metric.direction == "min" else "≥"
    target = "no target" if metric.target is None else f"target {metric.label} {sign} {short(metric.target)}"
    time = "" if seconds is None else f" or {short(seconds)} s"
    time += "" if cost is None else f" or {short(cost)} gradient-equivalents"
    rate = "" if schedule == "constant" else f"; learning rate {schedule}"
    return f"{target}; budget {steps} steps{time}; scale {scale}{rate}"


def header(table: TaskTable) -> list[str]:
    """The column titles of the printed table."""
    first, *rest = table.columns
    middle = [table.headings[c] for c in rest if c == "test"]
    others = [table.headings[c] for c in rest if c != "test"]
    return ["method", "framework", table.headings[first], *middle, "reached", *others, "status"]


def cells(row: TableRow, table: TaskTable) -> list[str]:
    """The printed cells of one row, in the order of :func:`header`."""
    first, *rest = table.columns
    final = text(row.estimates[first]) + (" *" if row.best else "")
    middle = [text(row.estimates[c]) for c in rest if c == "test"]
    n = len(row.row.included)
    reached = f"{row.reached}/{n}" if n else "-"
    blank = ("seconds", "step_ms") if table.blank else ()
    others = ["" if c in blank else text(row.estimates[c]) for c in rest if c != "test"]
    status = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in row.statuses.items())
    return [row.row.label, row.row.framework, final, *middle, reached, *others, status]


def markdown(table: TaskTable) -> str:
    """A GitHub table, its columns padded so that the source reads well too, and the notes below it."""
    grid = [[cell.replace("|", "\\|") for cell in line] for line in printed(table)]
    first, *rest = ["| " + " | ".join(line) + " |" for line in aligned(grid)]
    rule = "|".join(
        ("-" if c in LEFT else "") + "-" * (len(cell) + 1) + ("" if c in LEFT else ":")
        for c, cell in columns(aligned(grid)[0])
    )
    notes = [f"- {literal(note)}" for note in table.notes]
    return "\n".join([f"### {table.title}", "", heading(table), "", first, f"|{rule}|", *rest, "", *notes]) + "\n"


def printed(table: TaskTable) -> list[list[str]]:
    """The header and the cells of every row."""
    return [header(table), *(cells(row, table) for row in table.rows)]


def aligned(grid: list[list[str]]) -> list[list[str]]:
    """Pad the columns to equal width: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return [
        [cell.ljust(w) if c in LEFT else cell.rjust(w) for (c, cell), w in zip(columns(line), widths, strict=True)]
        for line in grid
    ]


def columns(line: list[str]) -> list[tuple[int, str]]:
    """Number the cells of a line; the last is -1."""
    return [*enumerate(line[:-1]), (-1, line[-1])]


def literal(note: str) -> str:
    """A note that begins with a sign of Markdown keeps it as a sign."""
    return f"\\{note}" if note[:1] in ("*", ">", "-", "#", "+") else note


def csv(table: TaskTable) -> str:
    """Every number with all its digits, one line per row: for programs. Notes are in the Markdown."""
    out: str = table.frame.to_csv(index=False, lineterminator="\n")
    return out


def latex(table: TaskTable) -> str:
    """One float, its notes in small print; rows within noise of the best have method and final metric in bold."""
    names = header(table)
    words = {c % len(names) for c in LEFT}
    body = [
        [escape(cell) if c in words else number(cell.removesuffix(" *")) for c, cell in enumerate(cells(row, table))]
        for row in table.rows
    ]
    marked = {(r, c) for r, row in enumerate(table.rows) if row.best for c in (0, 2)}
    form = "".join("l" if c in words else "r" for c in range(len(names)))
    grid = tabular([stacked(name) for name in names], body, marked, form)
    notes = ["Bold cannot" + note.removeprefix("* cannot") if note.startswith("* cannot") else note
             for note in table.notes]  # fmt: skip
    below = " ".join(escape(note.replace("`", "")) for note in notes)
    return f"{OPENING}\n{floating(grid, f'{table.title}: {heading(table)}', table.group.stem, below)}"


def terminal(table: TaskTable, stream: TextIO | None = None) -> None:
    """Print a table: with rich where ``stream`` is a terminal, plain text where it is not; NO_COLOR is respected."""
    stream = sys.stdout if stream is None else stream
    if stream.isatty():
        pretty(table, stream)
    else:
        stream.write(plain(table))


def plain(table: TaskTable) -> str:
    """Aligned columns without lines or colour, for pipes and logs."""
    lines = ["  ".join(line).rstrip() for line in aligned(printed(table))]
    notes = [f"  {note}" for note in table.notes]
    return "\n".join([table.title, heading(table), "", *lines, "", *notes]) + "\n"


def pretty(table: TaskTable, stream: TextIO) -> None:
    """The table in a terminal: rows within noise of the best in bold, failures dimmed, no cell cut.

    Columns that do not fit are left out, the cheapest to miss first, and named below.
    """
    from rich.box import SIMPLE_HEAD  # 70 ms that a pipe never needs
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    names = [name.replace(" to target", "\nto target").replace(", ", "\n") for name in header(table)]
    body = [cells(row, table) for row in table.rows]
    kept, hidden = fitting(names, body, console.width)
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    for c in kept:
        words = c in LEFT or c == len(names) - 1
        grid.add_column(Text(names[c]), justify="left" if words else "right", no_wrap=True)
    for row, line in zip(table.rows, body, strict=True):
        style = "bold" if row.best else "dim" if not row.row.included else ""
        grid.add_row(*(Text(line[c]) for c in kept), style=style)
    console.print(Text(table.title, style="bold"))
    console.print(Text(heading(table)))
    console.print(grid)
    notes = list(table.notes)
    if hidden:
        notes.insert(0, f"Left out for want of width: {', '.join(hidden)}; the Markdown and the CSV have them.")
    for note in notes:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))


def fitting(names: list[str], body: list[list[str]], width: int) -> tuple[list[int], list[str]]:
    """The columns that fit into ``width`` characters, two between them, and the headings of those that do not."""
    widths = [
        max(len(line) for line in [*name.split("\n"), *(row[c] for row in body)]) + 2 for c, name in enumerate(names)
    ]
    kept = list(range(len(names)))
    hidden = []
    for words in EXPENDABLE:
        if sum(widths[c] for c in kept) <= width:
            break
        for c in [c for c in kept if names[c].startswith(words)]:
            kept.remove(c)
            hidden.append(names[c].replace("\n", " "))
    return kept, hidden
