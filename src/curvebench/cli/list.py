"""``curvebench list``: the cards of a kind. Reads headings without validating them, so that it is instant."""

from __future__ import annotations

import json

import click

from curvebench.cards import headings
from curvebench.cli.kinds import complete_kind, read_kind
from curvebench.cli.lazy import USER_ERROR
from curvebench.cli.text import columns

COLUMNS = {
    "methods": ("name", "family", "needs", "frameworks", "title"),
    "tasks": ("name", "family", "dataset", "dtype", "title"),
    "datasets": ("name", "source", "licence", "title"),
    "studies": ("name", "scale", "seeds", "frameworks", "title"),
    "papers": ("name", "year", "venue", "authors", "title"),
}


@click.command(
    "list",
    epilog="""\b
Examples:
  curvebench list methods
  curvebench list tasks
  curvebench list methods --json | jq -r '.[].name'
""",
)
@click.argument("kind", callback=read_kind, shell_complete=complete_kind)
@click.option("--json", "as_json", is_flag=True, help="A list of objects, each with at least a name.")
@click.pass_context
def command(ctx: click.Context, kind: str, as_json: bool) -> None:
    """List the cards of KIND: methods, tasks, datasets, studies or papers."""
    rows, problems = headings(kind)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        shown = COLUMNS[kind]
        click.echo(columns([[row.get(key) for key in shown] for row in rows], shown))
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        ctx.exit(USER_ERROR)
