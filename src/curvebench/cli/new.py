"""``curvebench new``: the template of a method of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from curvebench.cli.templates import write_method


@click.group(
    "new",
    epilog="""\b
Examples:
  curvebench new method my-method
""",
)
def command() -> None:
    """Write the template of something new."""


@command.command(
    "method",
    epilog="""\b
Examples:
  curvebench new method my-method                     my-method.toml, here
  curvebench new method my-method --curvature         and my_method.py, a torch optimiser that asks for H v
  curvebench new method my-method --dir methods       in a checkout, as a card of the suite
""",
)
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where to write; default: here.",
)
@click.option("--curvature", is_flag=True, help="Also write a Python file with a torch optimiser that uses curvature.")
def method(name: str, folder: Path, curvature: bool) -> None:
    """Write the card of a method NAME, with comments; nothing is overwritten."""
    for path in write_method(name, folder, curvature=curvature):
        click.echo(path)
    card = folder / f"{name}.toml"
    click.echo(
        f"Edit it, then: curvebench show method ./{card.as_posix()} and curvebench check method {card.as_posix()}"
    )
