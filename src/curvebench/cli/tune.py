"""``curvebench tune``: draw the tuned hyperparameters of a study from pools of equal size."""

from __future__ import annotations

from pathlib import Path

import click

POOLS = Path("results") / "pools"
TUNED = Path("results") / "tuned"


@click.command(
    epilog="""\b
Examples:
  curvebench tune quick
  curvebench tune quick --trials 32
  curvebench tune quick --method mkor        (the others' pools stay as they are)

\b
Every (task, method) gets the same number of trials from its card's search space; the best on validation is written to
results/tuned/, with every trial beside it. Stop and repeat at will: stored trials are not run again, and a pool that
stands there whole is not touched, so that adding a method to a study tunes that method alone. What k of the trials
would have found, for every k, is written to results/tables/best-of-k/ and drawn.
"""
)
@click.argument("study")
@click.option("--trials", default=8, show_default=True, metavar="N", help="Trials in every pool.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Only this method; may be repeated.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option("--jobs", default=1, show_default=True, metavar="N", help="Trials at a time, each with its own cores.")
@click.option("--records", default=POOLS, show_default=True, type=click.Path(path_type=Path), help="Trials' records.")
@click.option("--out", default=TUNED, show_default=True, type=click.Path(path_type=Path), help="The results.")
@click.option("--again", is_flag=True, help="Tune again what is tuned, e.g. after a method's code has changed.")
@click.option("--no-figures", is_flag=True, help="Draw nothing.")
def tune(
    study: str,
    trials: int,
    methods: tuple[str, ...],
    tasks: tuple[str, ...],
    jobs: int,
    records: Path,
    out: Path,
    again: bool,
    no_figures: bool,
) -> None:
    """Tune the methods of STUDY on its tasks, each with an equal pool of trials."""
    from dataclasses import replace

    from curvebench.cli.bench import carry_out, study_card
    from curvebench.errors import MissingPackageError, UnknownNameError
    from curvebench.procedures.tune import conclude, pools, standing
    from curvebench.report import best_of_k
    from curvebench.schedule import Options, jobs_of
    from curvebench.store import Store

    card = study_card(study)
    for kind, asked, there in (("method", methods, card.methods), ("task", tasks, card.tasks)):
        for name in asked:
            if name not in there:
                raise UnknownNameError(f"{kind} of this study:", name, there)
    card = replace(card, methods=methods or card.methods, tasks=tasks or card.tasks)
    wanted, kept = [], 0
    for pool in pools(card, trials):
        if not again and (path := standing(pool, out)) is not None:
            kept += 1
            click.echo(f"{pool.task.name:<24} {pool.method.name:<12} {len(pool.specs):>3} trials  {path} (as it stood)")
        else:
            wanted.append(pool)
    trials_ = jobs_of([spec for pool in wanted for spec in pool.specs])
    store = Store(records)
    if wanted:
        carry_out(trials_, store, Options(jobs=jobs))
    for pool, path in zip(wanted, conclude(wanted, trials_, store, out), strict=True):
        click.echo(f"{pool.task.name:<24} {pool.method.name:<12} {len(pool.specs):>3} trials  {path}")
    try:
        forms = ["markdown"] if no_figures else ["markdown", "png", "svg"]
        written = best_of_k.build(out, out.parent, forms)
    except MissingPackageError as error:
        click.echo(f"best of k is not drawn: {error}", err=True)
        written = best_of_k.build(out, out.parent, ["markdown"])
    click.echo(f"best of k: {written[-1]} and {len(written) - 1} other files; {kept} pools were there", err=True)
