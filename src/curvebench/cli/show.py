"""``curvebench show``: everything on one card."""

from __future__ import annotations

import json

import click

from curvebench import cards
from curvebench.cli.describe import describe
from curvebench.cli.kinds import complete_kind, complete_name, read_kind


@click.command(
    "show",
    epilog="""\b
Examples:
  curvebench show method adam
  curvebench show task least-squares
  curvebench show method ./mine.toml
  curvebench show paper adahessian
  curvebench show dataset cifar10 --json | jq .files
""",
)
@click.argument("kind", callback=read_kind, shell_complete=complete_kind)
@click.argument("name", shell_complete=complete_name)
@click.option("--json", "as_json", is_flag=True, help="An object with every key of the card, its path and its digest.")
def command(kind: str, name: str, as_json: bool) -> None:
    """Show the card NAME of KIND (method, task, dataset, study, paper); NAME may be a .toml file."""
    card = cards.load_file(kind, name) if name.endswith(".toml") else cards.load(kind, name)
    if as_json:
        extra = {"path": card.path and cards.display(card.path), "digest": card.digest}
        click.echo(json.dumps(card.to_json() | extra, indent=2))
    else:
        click.echo(describe(card))
