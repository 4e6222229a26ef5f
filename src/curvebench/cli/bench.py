"""``curvebench bench``: run a study, or what of it is not stored yet, and print its table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import curvebench
from curvebench.errors import MissingPackageError
from curvebench.spec import FRAMEWORKS, digest

if TYPE_CHECKING:
    from curvebench.cards import StudyCard
    from curvebench.schedule import Choice, Job, Options, Summary
    from curvebench.store import Record, Store

RECORDS = Path("results") / "records"


@click.command(
    epilog="""\b
Examples:
  curvebench bench quick
  curvebench bench quick --plan
  curvebench bench quick --seeds 10 --budget 30min
  curvebench bench quick --only-method adam --only-method sgd --seeds 10
  curvebench bench quick --method mypkg.opt:MyOptimizer --needs gradient
  curvebench bench mine.toml --device cuda --jobs 1

\b
Stop it with Ctrl-C whenever you like: finished runs are stored, and the same command goes on from there.
CURVEBENCH_SMOKE=1 tries a study out: one seed, two seconds a run.
"""
)
@click.argument("study")
@click.option(
    "--method", "added", multiple=True, metavar="REF", help="Add a method: card, module:Class, file.py:Class."
)
@click.option("--needs", multiple=True, metavar="QUERY", help="What a method without a card asks for, e.g. gradient.")
@click.option("--only-method", "methods", multiple=True, metavar="NAME", help="Of the study's methods only this one.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option("--framework", "frameworks", multiple=True, type=click.Choice(FRAMEWORKS), help="Only this framework.")
@click.option("--seeds", type=int, metavar="N", help="Number of seed blocks instead of the study's.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:<number>.")
@click.option("--jobs", default=1, show_default=True, metavar="N", help="Runs at a time, each with its own cores.")
@click.option("--records", type=click.Path(path_type=Path, file_okay=False), help=f"Records, by default {RECORDS}.")
@click.option("--plan", "plan_only", is_flag=True, help="Show the runs and how long they may take; run nothing.")
@click.option("--budget", metavar="TIME", help="Wall time, e.g. 90s, 30min, 2h: the most informative runs that fit.")
@click.option("--retry-failed", is_flag=True, help="Run crashed, timed-out and out-of-memory runs again.")
@click.option("--reuse-curves", is_flag=True, help="Take other machines' records for runs; their times are left blank.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Kill a run after S seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def bench(
    study: str,
    added: tuple[str, ...],
    needs: tuple[str, ...],
    methods: tuple[str, ...],
    tasks: tuple[str, ...],
    frameworks: tuple[str, ...],
    seeds: int | None,
    device: str,
    jobs: int,
    records: Path | None,
    plan_only: bool,
    budget: str | None,
    retry_failed: bool,
    reuse_curves: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Run STUDY and print its table.

    STUDY is a name (see `curvebench list studies`) or a path to a study's TOML file. Runs that are stored are not run
    again; each of the others gets a process of its own.
    """
    from curvebench.schedule import Choice, Options, expand, jobs_of, unsettled
    from curvebench.store import Store

    import_from_here()
    card = study_card(study)
    choice = Choice(device, seeds, added, needs, methods, tasks, frameworks)
    wanted = jobs_of(expand(card, choice))
    announce(card, wanted)
    store = Store(records or RECORDS)
    options = Options(jobs=jobs, timeout=timeout, retry_failed=retry_failed, reuse_curves=reuse_curves)
    if budget is not None:
        wanted, options = within(budget, wanted, store, options)
    if plan_only:
        print_plan(card, wanted, unsettled(wanted, store, options), store, options, as_json)
        return
    summary = carry_out(wanted, store, options)
    print_results(card, variant(choice), wanted, store, options, summary, as_json)


def within(text: str, jobs: Sequence[Job], store: Store, options: Options) -> tuple[list[Job], Options]:
    """The runs in the order of what they tell, and options with the budget; says beforehand what may be concluded.

    Raises:
        CurvebenchError: the budget is not a time.
    """
    from dataclasses import replace

    from curvebench.cli.records import read
    from curvebench.schedule import budget, estimate, unsettled
    from curvebench.schedule.progress import duration

    seconds = budget.seconds_of(text)
    stored = read(store)
    todo = unsettled(jobs, store, options)
    expected = estimate([job.spec for job in todo], stored)
    ordered = budget.by_information(jobs, todo, expected.seconds)
    chosen = budget.fitting(ordered, expected.seconds, seconds, options.jobs)
    click.echo(f"in {duration(seconds)}: {len(chosen)} of {len(todo)} runs that are not stored are expected", err=True)
    for prospect in budget.prospects(jobs, todo, chosen, stored):
        click.echo(f"  {prospect.sentence}", err=True)
    waiting = {job.keys.run for job in todo}
    settled = [job for job in jobs if job.keys.run not in waiting]
    return [*settled, *ordered], replace(options, budget=seconds, expected=expected.seconds)


def carry_out(jobs: Sequence[Job], store: Store, options: Options) -> Summary:
    """Run a study with a display; a signal ends the program with what is stored and exit code 130 or 143.

    Raises:
        CurvebenchError: a device, store or number of jobs that will not do.
    """
    from curvebench.schedule import Estimate, Stopped, estimate, progress, run_study

    expected = Estimate({}, 0)

    def display(todo: Sequence[Job]) -> progress.Progress:
        nonlocal expected
        expected = estimate([job.spec for job in todo], store.scan()[0])
        return progress.display(progress.Clockwork(len(todo), expected.seconds, options.jobs))

    try:
        summary = run_study(jobs, store, options, display)
        if summary.records:
            ran = sum(expected.seconds.get(record.keys.run, 0.0) for record in summary.records)
            summary.planned = ran / options.jobs
        return summary
    except Stopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:  # before the first run, or after the last
        click.echo("stopped: nothing is lost; run the same command again to go on", err=True)
        sys.exit(130)


def import_from_here() -> None:
    """Make the working directory importable, last, so that no folder in it shadows a package."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def variant(choice: Choice) -> str:
    """What to add to the study's name for tables of something else than the study as its card states it."""
    from dataclasses import replace

    from curvebench.schedule import Choice, plan

    device = "" if choice.device == "cpu" else f"-{choice.device.replace(':', '')}"
    smoke = "-smoke" if plan.smoking() else ""
    return device + smoke + ("" if replace(choice, device="cpu") == Choice() else "-variant")


def study_card(reference: str) -> StudyCard:
    """A study by name or by path.

    Raises:
        CardError: there is no such study, or its card is invalid.
    """
    from curvebench import cards

    if reference.endswith(".toml") or os.sep in reference:
        card = cards.load_file("studies", reference)
        assert isinstance(card, cards.StudyCard)
        return card
    return cards.study(reference)


def announce(card: StudyCard, jobs: Sequence[Job]) -> None:
    """Say on stderr what of the study's promise does not hold here."""
    from curvebench.schedule import plan

    if plan.smoking():
        click.echo(f"{plan.SMOKE} is set: one seed and at most {plan.SMOKE_SECONDS:g} s a run", err=True)
    if card.hyperparameters == "tuned":
        pairs = {(job.spec.task, job.spec.method): job.spec.source for job in jobs}
        missing = sorted(f"{method} on {task}" for (task, method), source in pairs.items() if source != "tuned")
        if missing:
            some = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            click.echo(f"not tuned, the cards' defaults are used: {some}", err=True)


def print_plan(
    card: StudyCard, jobs: Sequence[Job], todo: Sequence[Job], store: Store, options: Options, as_json: bool
) -> None:
    """The runs, which of them are stored, and how long the others may take."""
    from curvebench.schedule import estimate
    from curvebench.schedule.progress import duration

    expected = estimate([job.spec for job in todo], store.scan()[0])
    waiting = {job.keys.run for job in todo}
    seconds = expected.total(options.jobs)
    if as_json:
        runs = [
            {
                "id": job.keys.run,
                "name": job.spec.label,
                "stored": job.keys.run not in waiting,
                "seconds": expected.seconds.get(job.keys.run),
            }
            for job in jobs
        ]
        report = {"study": card.name, "runs": runs, "stored": len(jobs) - len(todo), "seconds": seconds}
        click.echo(json.dumps({**report, "guessed": expected.guessed, "records": str(store.folder)}, indent=2))
        return
    for job in jobs:
        key = job.keys.run
        click.echo(f"{duration(expected.seconds[key]) if key in waiting else 'stored':>12}  {job.spec.label}")
    basis = (
        "judged by earlier runs"
        if not expected.guessed
        else f"{expected.guessed} of them by the task's budget, for want of earlier runs"
    )
    click.echo(f"{card.name}: {len(jobs)} runs, {len(jobs) - len(todo)} stored, {len(todo)} to run", nl=False)
    click.echo(f": about {duration(seconds)} ({basis})" if todo else "")


def print_results(
    card: StudyCard, variant: str, jobs: Sequence[Job], store: Store, options: Options, summary: Summary, as_json: bool
) -> None:
    """Print the tables of a study, write them and the figures, and say where everything is."""
    from curvebench import cards
    from curvebench.report import ranking, tables
    from curvebench.report.build import pools_in
    from curvebench.report.render import terminal

    keys = [job.keys for job in jobs]
    found = [store.find(k.run, k.code, k.machine, reuse_curves=options.reuse_curves) for k in keys]
    records = [record for record in found if record is not None]
    made = tables(records, pools_in(cards.root() / "results" / "tuned"))
    if as_json:
        report = {"study": card.name, **describe(summary), "records": str(store.folder)}
        click.echo(json.dumps({**report, "tables": [table.to_json() for table in made]}, indent=2, allow_nan=False))
    else:
        for table in made:
            terminal(table)
            click.echo()
            if (order := ranking.ranking(table.group, records)) is not None:
                click.echo(ranking.text(order))
    out = store.folder.parent if store.folder.name == RECORDS.name else store.folder
    written = write_results(records, out, card.name + variant)
    click.echo(sentence(card, summary), err=True)
    where = f"records: {store.folder}"
    click.echo(f"{written}; {where}" if written else where, err=True)


def write_results(records: Sequence[Record], out: Path, name: str) -> str:
    """Write tables and figures unless those that stand are of these records; say where they are."""
    from curvebench.report import build
    from curvebench.report.groups import slug

    stamp = out / "tables" / slug(name) / ".records"
    content = digest([curvebench.__version__, sorted((record.name, record.reused) for record in records)])
    place = f"tables: {stamp.parent}; figures: {out / 'figures' / slug(name)}"
    try:
        standing = json.loads(stamp.read_text())
        if standing["records"] == content and all((out / path).exists() for path in standing["files"]):
            return place
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never written, or not by this version: write it now
    try:
        written = build(records, out, study=name)
    except MissingPackageError as error:
        click.echo(f"tables and figures are not written: {error}", err=True)
        return ""
    files = [str(path.relative_to(out)) for path in written]
    stamp.write_text(json.dumps({"records": content, "files": files}))
    return place


def sentence(card: StudyCard, summary: Summary) -> str:
    """``quick: 144 runs, 3 of them now in 4.0 s (2 reached, 1 crashed)``."""
    from curvebench.schedule.progress import duration

    if not summary.ran and not summary.left:
        return f"{card.name}: all {summary.total} runs were stored"
    counts = ", ".join(f"{count} {status}" for status, count in summary.statuses.most_common())
    if summary.left:
        counts += f"; the budget left {summary.left} undone: the same command goes on with them"
    took = duration(summary.seconds)
    if summary.planned:
        took += f", {summary.seconds / summary.planned:.2f} of the {duration(summary.planned)} that were planned"
    return f"{card.name}: {summary.total} runs, {summary.ran} of them now in {took} ({counts})"


def describe(summary: Summary) -> dict[str, Any]:
    """A summary in JSON types."""
    return {
        "runs": summary.total,
        "stored": summary.stored,
        "ran": summary.ran,
        "left": summary.left,
        "statuses": dict(summary.statuses),
        "seconds": summary.seconds,
        "planned": summary.planned,
    }
