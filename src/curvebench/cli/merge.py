"""``curvebench merge``: records of several folders into one."""

from __future__ import annotations

from pathlib import Path

import click

from curvebench.cli.lazy import USER_ERROR

RECORDS = Path("results") / "records"


@click.command(
    epilog="""\b
Examples:
  curvebench merge /mnt/other-machine/results/records
  curvebench merge a/records b/records --into results/records

\b
The sources are only read. A record that is there already is not copied again.
"""
)
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--into", default=RECORDS, show_default=True, type=click.Path(path_type=Path, file_okay=False), help="The target."
)
@click.pass_context
def merge(ctx: click.Context, sources: tuple[Path, ...], into: Path) -> None:
    """Append the records of SOURCES to another folder of records."""
    from curvebench.store import Store
    from curvebench.store.exchange import merge as append_from

    target = Store(into)
    refused = False
    for source in sources:
        taken = append_from(target, Store(source))
        for sentence in taken.refused:
            click.echo(f"left out: {sentence}", err=True)
        refused = refused or bool(taken.refused)
        click.echo(f"{source}: {taken.new} new, {taken.there} were there, {len(taken.refused)} left out")
    if refused:
        ctx.exit(USER_ERROR)
