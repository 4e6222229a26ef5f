"""``curvebench reproduce``: a paper's tables, reported beside measured, with a verdict in each cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curvebench import cards
from curvebench.cli.text import columns
from curvebench.errors import CurvebenchError

if TYPE_CHECKING:
    from curvebench.spec import RunSpec

RECORDS = Path("results") / "records"


@click.command(
    epilog="""\b
Examples:
  curvebench reproduce                              every paper, how many cells have which verdict
  curvebench reproduce adahessian
  curvebench reproduce mfac --format markdown > mfac.md
  curvebench reproduce mfac --format latex > mfac.tex
  curvebench reproduce deepzero --records other/records --json | jq '.cells[] | select(.n > 0)'
  curvebench reproduce deepzero --run --plan

\b
Without --run nothing is run: what has no records says what it needs. The rule of the verdicts is in docs/papers.md.
"""
)
@click.argument("name", required=False, metavar="[PAPER]")
@click.option(
    "--records",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the records are, may be repeated.  [default: results/records and the committed reference records]",
)
@click.option(
    "--format", "form", type=click.Choice(["terminal", "markdown", "csv", "latex"]), default="terminal", help="How."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--run", "running", is_flag=True, help="First run what the paper's measures ask for and is not stored.")
@click.option("--plan", "plan_only", is_flag=True, help="With --run: list the runs and run none.")
@click.option("--seeds", default=5, show_default=True, metavar="N", help="With --run: seed blocks.")
@click.option("--framework", type=click.Choice(["torch", "jax"]), default="torch", help="With --run: which.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="With --run: where.")
def reproduce(
    name: str | None, folders: tuple[Path, ...], form: str, as_json: bool, running: bool, plan_only: bool, seeds: int,
    framework: str, device: str,
) -> None:  # fmt: skip
    """Print PAPER's numbers beside the measured ones, with a verdict each; without PAPER an overview."""
    from curvebench.procedures import reproduce as procedure
    from curvebench.report import paper_text, papers

    if running and name is None:
        raise CurvebenchError("--run: name the paper; all of them are weeks of runs")
    if plan_only and not running:
        raise CurvebenchError("--plan: only with --run")
    if running:
        assert name is not None
        _run(procedure.runs(cards.paper(name), framework, seeds, device), folders[0] if folders else RECORDS, plan_only)
        if plan_only:
            return
    records, problems = procedure.gather(folders or (cards.root() / RECORDS / "reference", RECORDS))
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    if name is None:
        found = [procedure.reproduce(cards.paper(one), records) for one in cards.names("papers")]
        if as_json:
            click.echo(json.dumps([papers.to_json(one) for one in found], indent=2, allow_nan=False))
        else:
            rows = [[one.card.name, paper_text.summary(one)] for one in found]
            click.echo(columns(rows, ["paper", "verdicts"]))
        return
    report = procedure.reproduce(cards.paper(name), records)
    if as_json:
        click.echo(json.dumps(papers.to_json(report), indent=2, allow_nan=False))
    else:
        click.echo(paper_text.render(report, form), nl=False)


def _run(specs: list[RunSpec], folder: Path, plan_only: bool) -> None:
    from curvebench.cli.bench import carry_out
    from curvebench.schedule import Options, jobs_of
    from curvebench.store import Store

    if plan_only:
        for spec in specs:
            click.echo(spec.label)
        click.echo(f"{len(specs)} runs; those that are stored are not run again", err=True)
        return
    carry_out(jobs_of(specs), Store(folder), Options())
