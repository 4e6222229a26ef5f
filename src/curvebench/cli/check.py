"""``curvebench check``: does a method keep the contract?"""

from __future__ import annotations

import json
import sys

import click


@click.group()
def check() -> None:
    r"""Test a method against the contract that all of them keep.

    \b
    Examples:
      curvebench check method adam
      curvebench check method mine.toml --framework torch
      curvebench check method my.py:MyOptimizer --needs gradient
    """


@check.command()
@click.argument("reference")
@click.option("--needs", multiple=True, metavar="QUERY", help="What a method without a card asks for, e.g. gradient.")
@click.option("--framework", type=click.Choice(["torch", "jax"]), help="Only this framework; default: all it has.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:<number>.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def method(reference: str, needs: tuple[str, ...], framework: str | None, device: str, as_json: bool) -> None:
    r"""Run the conformance test on the method REFERENCE: a name, a card, module:Class or file.py:Class.

    \b
    Examples:
      curvebench check method adahessian
      curvebench check method my.py:MyOptimizer --needs gradient --json

    Exit code 0 if everything holds, 1 if something does not.
    """
    from curvebench.errors import CardError
    from curvebench.methods import resolve
    from curvebench.procedures.conformance import conformance
    from curvebench.schedule.plan import check_needs

    card = resolve(reference, check_needs(needs) or None)
    if framework is not None and framework not in card.frameworks:
        raise CardError(f"{card.name}: no implementation in {framework}: there is {' and '.join(card.frameworks)}")
    findings = []
    for name in [framework] if framework else card.frameworks:
        for finding in conformance(card, reference, name, device):
            findings.append(finding)
            if not as_json:
                mark = click.style("ok", fg="green") if finding.holds else click.style("no", fg="red", bold=True)
                click.echo(f"{finding.framework:<6}{mark}  {finding.statement}: {finding.seen}")
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    failed = sum(not finding.holds for finding in findings)
    if not as_json:
        click.echo(f"{card.name}: {len(findings) - failed} of {len(findings)} statements hold")
    sys.exit(1 if failed else 0)
