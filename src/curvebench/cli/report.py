"""``curvebench report``: tables and figures from stored records; runs nothing, needs neither torch nor jax."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curvebench import cards
from curvebench.errors import CardError, StoreError, UnknownNameError
from curvebench.report import build, of_study, ranking, tables
from curvebench.report.build import pools_in
from curvebench.report.groups import slug
from curvebench.report.render import FORMATS, render, terminal
from curvebench.report.site import write as site
from curvebench.store import Store
from curvebench.store.certificate import certificate

if TYPE_CHECKING:
    from curvebench.report.tables import TaskTable
    from curvebench.store import Record

RESULTS = Path("results")


@click.command(
    epilog="""\b
Examples:
  curvebench report
  curvebench report --study quick --no-figures
  curvebench report --task digits-cnn --format markdown > digits.md
  curvebench report --records other/records --out other
  curvebench report --json | jq -r '.[].rows[] | [.method, .framework, .final] | @tsv'
  xdg-open results/report/index.html

\b
Besides what it prints it writes, below --out:
  report/index.html (report/study-<study>/index.html), a site that opens from disk, and report.json beside it
  tables/<study or all>/<task>.md, <task>.csv, <task>.tex, <task>-ranking.md, <task>-pairs.csv
  and index.md beside them
  figures/<study or all>/<task>.png and <task>.svg
"""
)
@click.option(
    "--records",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS / "records",
    show_default=True,
    help="Where the records are.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    show_default=True,
    help="Where tables and figures go.",
)
@click.option("--task", metavar="NAME", help="Only this task.")
@click.option("--study", metavar="NAME", help="Only the runs that belong to this study.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="terminal", help="How to print the tables.")
@click.option("--no-figures", is_flag=True, help="Draw no curves: two seconds faster.")
@click.option("--no-html", is_flag=True, help="Write no site: two seconds faster.")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def report(
    records: Path, out: Path, task: str | None, study: str | None, form: str, no_figures: bool, no_html: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Make tables and figures from stored records.

    Every mean comes with its 95 % interval over seeds; the notes under a table say what else is to be known. The last
    line is the certificate below --out, with its age and the hash of its sources.
    """
    found, problems = Store(records).scan()
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)
    chosen = choose(found, records, task, study)
    made = tables(chosen, pools_in(out / "tuned"))
    if as_json:
        click.echo(json.dumps([table.to_json() for table in made], indent=2, allow_nan=False))
    elif form == "terminal":
        for place, table in enumerate(made):
            click.echo("", nl=place > 0)
            terminal(table, sys.stdout)
            click.echo(f"  {target_source(table)}")
            if (order := ranking.ranking(table.group, found)) is not None:
                click.echo("\n" + ranking.text(order), nl=False)
    else:
        said = [f"- {target_source(table)}\n" if form == "markdown" else "" for table in made]
        click.echo("\n".join(render(table, form) + note for table, note in zip(made, said, strict=True)), nl=False)
    if not as_json:
        click.echo(f"\n{certificate(out).line}")
    pictures = () if no_figures else ("png", "svg")
    written = build(chosen, out, ("markdown", "csv", "latex", *pictures), study=study)
    click.echo(f"written: {written[-1]} and {len(written) - 1} other files below {out}", err=True)
    if not no_html:
        folder = out / "report" / f"study-{slug(study)}" if study else out / "report"
        page = site.build(chosen, folder, out / "tuned", study=study)[0]
        click.echo(f"open {page}", err=True)


def target_source(table: TaskTable) -> str:
    """What set the target of a table, as far as the task's card of today still states it."""
    task, scale = table.group.setting[:2]
    target = table.group.newest.metric.target
    if task not in cards.names("tasks") or scale not in (card := cards.task(task)).scales:
        return "What set the target is not known: the task has no card here."
    if target is None:
        return "No target: only the final metric is compared."
    if card.at(scale).target != target:
        return f"The target was {target:g}; the card now says {card.at(scale).target:g}."
    return f"What set the target: {card.target_source(scale)}."


def choose(found: Sequence[Record], folder: Path, task: str | None, study: str | None) -> list[Record]:
    """The records that were asked for.

    Raises:
        StoreError: there are none.
        CardError: no record is of this task, or no study has this name.
    """
    if not found:
        raise StoreError(
            f"no records in {folder}: run `curvebench bench quick` first, or name another folder with --records DIR"
        )
    chosen = list(found)
    if study is not None:
        chosen = of_study(chosen, cards.study(study))
        if not chosen:
            raise CardError(f"no record in {folder} belongs to the study {study!r}: run `curvebench bench {study}`")
    if task is not None:
        tasks = {record.spec.task for record in chosen}
        if task not in tasks:
            raise UnknownNameError("task among the records", task, tasks)
        chosen = [record for record in chosen if record.spec.task == task]
    return chosen
