"""``curvebench doctor``: what is here, what is missing and how to get it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from curvebench.cli.diagnosis import examine
from curvebench.cli.prescription import render


@click.command(
    "doctor",
    epilog="""\b
Examples:
  curvebench doctor
  curvebench doctor --records /scratch/results
  curvebench doctor --json | jq .devices
""",
)
@click.option("--json", "as_json", is_flag=True, help="Everything as one object.")
@click.option(
    "--records",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="The folder that records go to.",
)
@click.option("--timeout", default=60.0, show_default=True, help="Seconds that a framework gets to list its devices.")
def command(as_json: bool, records: Path, timeout: float) -> None:
    """Say what is installed, which devices, cards and data are here, what is missing and how to get it."""
    found = examine(records, timeout)
    click.echo(json.dumps(found, indent=2) if as_json else render(found))
