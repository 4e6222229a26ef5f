"""``curvebench certify``: what the suite states about itself, measured."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from curvebench.procedures.certify import Finding

RESULTS = Path("results")


@click.command(
    epilog="""\b
Examples:
  curvebench certify
  curvebench certify newton-affine-invariant sgd-trace-bound
  curvebench certify --json

A whole certificate is stored as results/certificate.json and printed by `curvebench report`, with its age and the hash
of the sources; one of named statements is not.

\b
Exit code 0 if every statement that could be measured holds, 1 if one does not.
"""
)
@click.argument("names", nargs=-1, metavar="[STATEMENT]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", default=RESULTS, show_default=True, type=click.Path(path_type=Path), help="Where it is stored.")
@click.option("--list", "only_list", is_flag=True, help="Name the statements and measure nothing.")
def certify(names: tuple[str, ...], as_json: bool, out: Path, only_list: bool) -> None:
    """Measure the statements that the tasks, oracles and methods make about themselves; all, or those named."""
    from curvebench.procedures.certify import certify as measure
    from curvebench.procedures.certify import statements

    if only_list:
        for statement in statements():
            click.echo(f"{statement.name:<36} {statement.bound:<18} {statement.sentence}")
        return
    findings, began = [], datetime.now(UTC)
    for finding in measure(names):
        findings.append(finding)
        if not as_json:
            colour = {"pass": "green", "fail": "red"}.get(finding.outcome, "yellow")
            value = "-" if finding.value is None else f"{finding.value:.4g}"
            mark = click.style(f"{finding.outcome:<13}", fg=colour, bold=finding.outcome == "fail")
            click.echo(f"{mark} {finding.name:<36} {value:>11}  {finding.bound:<16} {finding.seconds:6.1f} s")
            if finding.outcome != "pass":
                click.echo(f"              {finding.sentence}: {finding.seen}")
    if not names:
        _store(findings, began, out)
    failed = sum(finding.outcome == "fail" for finding in findings)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        held = sum(finding.outcome == "pass" for finding in findings)
        click.echo(f"{held} of {len(findings)} statements hold, {len(findings) - held - failed} not measured")
    sys.exit(1 if failed else 0)


def _store(findings: list[Finding], began: datetime, out: Path) -> None:
    from curvebench.machine import describe, fingerprint
    from curvebench.run.environment import versions
    from curvebench.schedule.provenance import git
    from curvebench.store.certificate import code_hash, write_certificate

    machine = fingerprint()
    seconds = round((datetime.now(UTC) - began).total_seconds(), 1)
    path = write_certificate(out, {
        "started": began.isoformat(timespec="seconds"), "seconds": seconds, "code": code_hash(), "git": git(),
        "versions": versions(), "machine": {**machine, "line": describe(machine)},
        "findings": [finding._asdict() for finding in findings],
    })  # fmt: skip
    click.echo(f"written: {path}", err=True)
