"""``curvebench why-rerun``: why runs of a study would be done again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

RECORDS = Path("results") / "records"


@click.command(
    "why-rerun",
    epilog="""\b
Examples:
  curvebench why-rerun quick
  curvebench why-rerun quick --records results/records/reference --all
  curvebench why-rerun quick --task digits-cnn --only-method adam

\b
A run is skipped only if a record has all three of its keys: run (spec and cards), code (sources and versions) and
machine. Each run is compared with the record that comes nearest; equal reasons are counted together.
""",
)
@click.argument("study")
@click.option("--only-method", "methods", multiple=True, metavar="NAME", help="Only this method; may be repeated.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option("--seeds", type=int, metavar="N", help="Number of seed blocks instead of the study's.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:<number>.")
@click.option("--records", default=RECORDS, show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--retry-failed", is_flag=True, help="As bench --retry-failed would.")
@click.option("--all", "each", is_flag=True, help="Every run by itself.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    study: str,
    methods: tuple[str, ...],
    tasks: tuple[str, ...],
    seeds: int | None,
    device: str,
    records: Path,
    retry_failed: bool,
    each: bool,
    as_json: bool,
) -> None:
    """Say which of the three keys differ, and in what, for each run of STUDY that would be done."""
    from curvebench.cli.bench import study_card
    from curvebench.cli.records import read
    from curvebench.procedures.why import why
    from curvebench.schedule import Choice, Options, expand, jobs_of, unsettled
    from curvebench.store import Store

    store = Store(records)
    jobs = jobs_of(expand(study_card(study), Choice(device, seeds, methods=methods, tasks=tasks)))
    todo = unsettled(jobs, store, Options(retry_failed=retry_failed))
    found = why(todo, read(store), retry_failed)
    if as_json:
        rows = [
            {
                "run": reason.job.keys.run,
                "name": reason.job.spec.label,
                "nearest": reason.nearest.name if reason.nearest else None,
                "keys": reason.differing,
                "details": reason.details,
            }
            for reason in found
        ]
        click.echo(json.dumps({"runs": len(jobs), "stored": len(jobs) - len(todo), "rerun": rows}, indent=2))
        return
    click.echo(f"{len(jobs)} runs, {len(jobs) - len(todo)} stored, {len(todo)} would be done")
    if each:
        for reason in found:
            click.echo(f"\n{reason.job.spec.label}: {', '.join(reason.differing) or 'failed'}")
            for detail in reason.details:
                click.echo(f"  {detail}")
        return
    for (differing, details), count in Counter((r.differing, r.details) for r in found).most_common():
        click.echo(f"\n{count} run{'s' if count != 1 else ''}: {', '.join(differing) or 'failed'}")
        for detail in details:
            click.echo(f"  {detail}")
