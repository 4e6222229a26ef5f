"""``curvebench records``: what is stored, from the index."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curvebench.cli.text import columns

if TYPE_CHECKING:
    from curvebench.store import Index, Problem, Record, Store

RECORDS = Path("results") / "records"
SHOWN_FROM = 5000
"""Records to read from which on reading them shows how far it is."""


@click.command(
    epilog="""\b
Examples:
  curvebench records
  curvebench records --task digits-cnn
  curvebench records --records results/records/reference --json
"""
)
@click.option(
    "--records", default=RECORDS, show_default=True, type=click.Path(path_type=Path, file_okay=False), help="Where."
)
@click.option("--task", metavar="NAME", help="Only this task.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def records(records: Path, task: str | None, as_json: bool) -> None:
    """List what is stored: runs by task, method and framework, how they ended, when the last one started."""
    from curvebench.store import Index, Store

    index = Index(Store(records))
    try:
        warn(refreshed(index))
        found = [row for row in index.counts() if task in (None, row[0])]
    finally:
        index.close()
    cells: defaultdict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    newest: defaultdict[tuple[str, str, str], str] = defaultdict(str)
    for name, method, framework, status, count, _, started in found:
        cells[name, method, framework][status] = count
        newest[name, method, framework] = max(newest[name, method, framework], started)
    if as_json:
        rows = [
            {"task": t, "method": m, "framework": f, "statuses": statuses, "newest": newest[t, m, f]}
            for (t, m, f), statuses in cells.items()
        ]
        click.echo(json.dumps({"records": sum(row[4] for row in found), "rows": rows}, indent=2))
        return
    lines = [
        [t, m, f, sum(s.values()), ", ".join(f"{n} {status}" for status, n in s.items()), newest[t, m, f]]
        for (t, m, f), s in cells.items()
    ]
    if lines:
        click.echo(columns(lines, ["task", "method", "framework", "runs", "ended", "newest"]))
    click.echo(f"{sum(row[4] for row in found)} records in {records}", err=True)


def read(store: Store) -> list[Record]:
    """The records of a store by way of its index, with progress where that takes long and warnings on stderr."""
    from curvebench.store import Index

    index = Index(store)
    try:
        warn(refreshed(index))
        return index.records()
    finally:
        index.close()


def refreshed(index: Index) -> list[Problem]:
    """Bring an index up to date; many records to read are shown on stderr."""

    def told(done: int, total: int) -> None:
        if total >= SHOWN_FROM:
            click.echo(f"indexing records: {done} of {total}", err=True)

    return index.refresh(told)


def warn(problems: list[Problem]) -> None:
    """Say what could not be read."""
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
