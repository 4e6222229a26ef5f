"""``curvebench data``: which data sets are here, bring one here, check one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from curvebench import cards
from curvebench.data import fetch as fetching
from curvebench.data import load, roots


@click.group(
    epilog="""\b
Examples:
  curvebench data list
  curvebench data fetch cifar10
  CURVEBENCH_DATA=/data curvebench data verify cifar10
"""
)
def data() -> None:
    """List, fetch and verify data sets.

    Data lie in $CURVEBENCH_DATA/<data set>/, else in the user's cache folder.
    """


@data.command(
    "list",
    epilog="""\b
Examples:
  curvebench data list
  curvebench data list --json
""",
)
@click.option("--json", "as_json", is_flag=True, help="A list of objects instead of a table.")
def list_(as_json: bool) -> None:
    """Show every data set and whether it is on this machine.

    Checksums are part of the answer; a file that has not changed since its last check is not read again.
    """
    rows = []
    for card in map(cards.dataset, cards.names("datasets")):
        word, sentence = roots.status(card)
        rows.append({"name": card.name, "title": card.title, "status": word, "detail": sentence})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    wide = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        click.echo(f"{row['name']:<{wide}}  {row['status']:<8}  {row['title']}: {row['detail']}")


@data.command(
    epilog="""\b
Examples:
  curvebench data fetch cifar10
  curvebench data fetch cifar10 --layout binary
  curvebench data fetch cifar10 --root /scratch/data

\b
Without a network, put the archive at <root>/<data set>/<archive> and run the same command.
"""
)
@click.argument("name")
@click.option("--layout", help="One of the card's layouts; default its first.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to put it under; default $CURVEBENCH_DATA, else the user's cache folder.",
)
def fetch(name: str, layout: str | None, root: Path | None) -> None:
    """Download the data set NAME, check it and unpack it."""
    card = cards.dataset(name)
    folder = fetching.fetch(card, root=root, layout=layout)
    click.echo(f"{card.name}: {folder}, checksums match")
    if root and root.absolute() not in roots.roots():
        click.echo(f"To have it found there: export {roots.VARIABLE}={root.absolute()}")
    click.echo(f"Terms: {card.terms}")


@data.command(
    epilog="""\b
Examples:
  curvebench data verify cifar10
  curvebench data verify digits
"""
)
@click.argument("name")
def verify(name: str) -> None:
    """Hash every file of the data set NAME again and compare with its card."""
    card = cards.dataset(name)
    if card.source == "download":
        folder = roots.locate(card)
        layout = roots.verify(card, folder, stamps=False)
        for file in roots.layouts(card)[layout]:
            status = "" if file.status == "official" else f"  ({file.status}: not the official bytes, see the card)"
            click.echo(f"ok  {folder / file.path}  {(folder / file.path).stat().st_size:,} bytes{status}")
        return
    load(name)
    click.echo(f"ok  {card.name}: {roots.status(card)[1]}")
