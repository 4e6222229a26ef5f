"""``curvebench compare``: two records, methods, commits or machines on one page: what differs, and is it noise."""

from __future__ import annotations

import json
from pathlib import Path

import click

RECORDS = Path("results") / "records"


@click.command(
    epilog="""\b
Examples:
  curvebench compare adam sgd --records results/records/reference
  curvebench compare adam sgd --task least-squares --framework torch --markdown
  curvebench compare results/records ../colleague/results/records
  curvebench compare commit:1a2b3c4 commit:5d6e7f8
  curvebench compare a.json b.json --json

\b
A and B are each a record's file, a folder of records, a method, or the beginning of a run id, a commit or a machine's
key among the records. Runs nothing.
"""
)
@click.argument("a")
@click.argument("b")
@click.option(
    "--records",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the records are, may be repeated.  [default: results/records and the reference records]",
)
@click.option("--task", metavar="NAME", help="Only this task.")
@click.option("--framework", type=click.Choice(["torch", "jax"]), help="Only this framework.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    a: str, b: str, folders: tuple[Path, ...], task: str | None, framework: str | None, markdown: bool, as_json: bool
) -> None:  # fmt: skip
    """Say what differs between A and B, and for every number whether the difference is noise."""
    from curvebench import cards
    from curvebench.procedures.reproduce import gather
    from curvebench.report import compare_text
    from curvebench.report.compare import contrast
    from curvebench.report.sides import only, side

    if markdown and as_json:
        raise click.UsageError("--markdown, --json: one of the two")
    records, problems = gather(folders or (cards.root() / RECORDS / "reference", RECORDS))
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    found = contrast(*(only(side(name, records), task, framework) for name in (a, b)))
    if as_json:
        click.echo(json.dumps(compare_text.to_json(found), indent=2, allow_nan=False))
    else:
        click.echo(compare_text.render(found, marked=markdown), nl=False)
