"""``curvebench export``: records as one parquet, or as a benchmark of benchopt."""

from __future__ import annotations

from pathlib import Path

import click

RECORDS = Path("results") / "records"


@click.command(
    epilog="""\b
Examples:
  curvebench export records.parquet
  curvebench export quick.parquet --study quick --records results/records/reference
  curvebench export for-benchopt --format benchopt && benchopt plot for-benchopt

\b
The parquet has a line per record: scalars by their path, curves as lists, and the whole record as JSON, which
`curvebench import` takes back. For benchopt a folder is written that `benchopt plot` opens.
"""
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["parquet", "benchopt"]), default="parquet", show_default=True)
@click.option("--study", metavar="NAME", help="Only the runs that belong to this study.")
@click.option("--task", metavar="NAME", help="Only this task.")
@click.option(
    "--records",
    default=RECORDS,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where from.",
)
def export(out: Path, form: str, study: str | None, task: str | None, records: Path) -> None:
    """Write records to OUT for other programs."""
    from curvebench.cli.report import choose
    from curvebench.report.export import benchopt, parquet
    from curvebench.store import Store

    found, problems = Store(records).scan()
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    chosen = choose(found, records, task, study)
    written = parquet(chosen, out) if form == "parquet" else benchopt(chosen, out, study or "curvebench")
    click.echo(f"{len(chosen)} records: {written}")
