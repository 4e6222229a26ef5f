"""``curvebench certify``: what the suite states about itself, measured."""

from __future__ import annotations

import json
import sys

import click


@click.command(
    epilog="""\b
Examples:
  curvebench certify
  curvebench certify newton-affine-invariant sgd-trace-bound
  curvebench certify --json

Exit code 0 if every statement that could be measured holds, 1 if one does not.
"""
)
@click.argument("names", nargs=-1, metavar="[STATEMENT]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--list", "only_list", is_flag=True, help="Name the statements and measure nothing.")
def certify(names: tuple[str, ...], as_json: bool, only_list: bool) -> None:
    """Measure the statements that the tasks, oracles and methods make about themselves; all, or those named."""
    from curvebench.procedures.certify import certify as measure
    from curvebench.procedures.certify import statements

    if only_list:
        for statement in statements():
            click.echo(f"{statement.name:<36} {statement.bound:<18} {statement.sentence}")
        return
    findings = []
    for finding in measure(names):
        findings.append(finding)
        if not as_json:
            colour = {"pass": "green", "fail": "red"}.get(finding.outcome, "yellow")
            value = "-" if finding.value is None else f"{finding.value:.4g}"
            mark = click.style(f"{finding.outcome:<13}", fg=colour, bold=finding.outcome == "fail")
            click.echo(f"{mark} {finding.name:<36} {value:>11}  {finding.bound:<16} {finding.seconds:6.1f} s")
            if finding.outcome != "pass":
                click.echo(f"              {finding.sentence}: {finding.seen}")
    failed = sum(finding.outcome == "fail" for finding in findings)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        held = sum(finding.outcome == "pass" for finding in findings)
        click.echo(f"{held} of {len(findings)} statements hold, {len(findings) - held - failed} not measured")
    sys.exit(1 if failed else 0)
