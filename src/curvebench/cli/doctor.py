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
  curvebench doctor --clock
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
@click.option(
    "--clock", is_flag=True, help="Instead: inject known delays, and see what the clock bills. Exit code 1 if wrong."
)
def command(as_json: bool, records: Path, timeout: float, clock: bool) -> None:
    """Say what is installed, which devices, cards and data are here, what is missing and how to get it."""
    if clock:
        _check_clock(as_json)
        return
    found = examine(records, timeout)
    click.echo(json.dumps(found, indent=2) if as_json else render(found))


def _check_clock(as_json: bool) -> None:
    from curvebench.procedures.clock_check import check_clock

    findings = []
    for finding in check_clock():
        findings.append(finding)
        if not as_json:
            word = {True: "holds", False: "FAILS", None: "untried"}[finding.holds]
            click.echo(f"{word:<8} {finding.statement}: {finding.seen}")
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    if any(finding.holds is False for finding in findings):
        raise SystemExit(1)
