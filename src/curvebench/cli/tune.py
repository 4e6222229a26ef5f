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
results/tuned/, with every trial beside it. Stop and repeat at will: stored trials are not run again.
"""
)
@click.argument("study")
@click.option("--trials", default=8, show_default=True, metavar="N", help="Trials in every pool.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Only this method; may be repeated.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option("--jobs", default=1, show_default=True, metavar="N", help="Trials at a time, each with its own cores.")
@click.option("--records", default=POOLS, show_default=True, type=click.Path(path_type=Path), help="Trials' records.")
@click.option("--out", default=TUNED, show_default=True, type=click.Path(path_type=Path), help="The results.")
def tune(
    study: str, trials: int, methods: tuple[str, ...], tasks: tuple[str, ...], jobs: int, records: Path, out: Path
) -> None:
    """Tune the methods of STUDY on its tasks, each with an equal pool of trials."""
    from dataclasses import replace

    from curvebench.cli.bench import carry_out, study_card
    from curvebench.errors import UnknownNameError
    from curvebench.procedures.tune import conclude, pools
    from curvebench.schedule import Options, jobs_of
    from curvebench.store import Store

    card = study_card(study)
    for kind, asked, there in (("method", methods, card.methods), ("task", tasks, card.tasks)):
        for name in asked:
            if name not in there:
                raise UnknownNameError(f"{kind} of this study:", name, there)
    card = replace(card, methods=methods or card.methods, tasks=tasks or card.tasks)
    wanted = pools(card, trials)
    trials_ = jobs_of([spec for pool in wanted for spec in pool.specs])
    store = Store(records)
    carry_out(trials_, store, Options(jobs=jobs))
    for pool, path in zip(wanted, conclude(wanted, trials_, store, out), strict=True):
        click.echo(f"{pool.task.name:<24} {pool.method.name:<12} {len(pool.specs):>3} trials  {path}")
