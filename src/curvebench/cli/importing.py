"""``curvebench import``: records of any schema that was ever released."""

from __future__ import annotations

from pathlib import Path

import click

from curvebench.cli.lazy import USER_ERROR

RECORDS = Path("results") / "records"


@click.command(
    "import",
    epilog="""\b
Examples:
  curvebench import old/records
  curvebench import records.parquet --records results/records

\b
PLACE is a folder of records, one .json, a .jsonl with a record a line, or a parquet of `curvebench export`. Records
of older schemas are brought to the present one; PLACE is only read.
""",
)
@click.argument("place", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--records", default=RECORDS, show_default=True, type=click.Path(path_type=Path, file_okay=False), help="Where to."
)
@click.pass_context
def command(ctx: click.Context, place: Path, records: Path) -> None:
    """Take in records that another version of curvebench has written."""
    from curvebench.store import Store
    from curvebench.store.exchange import import_records

    taken = import_records(Store(records), place)
    for sentence in taken.refused:
        click.echo(f"left out: {sentence}", err=True)
    click.echo(f"{place}: {taken.new} new, {taken.there} were there, {len(taken.refused)} left out")
    if taken.refused:
        ctx.exit(USER_ERROR)
