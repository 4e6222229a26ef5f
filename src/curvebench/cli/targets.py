"""``curvebench targets``: set a task's target by the stated procedure."""

from __future__ import annotations

from pathlib import Path

import click

RUNS = Path("results") / "pools"
TARGETS = Path("results") / "targets"


@click.command(
    epilog="""\b
Examples:
  curvebench targets rosenbrock
  curvebench targets softmax-digits --scale quick --trials 8 --seeds 5 --on-card

\b
Tuned first-order baselines under an equal number of trials; the winner again on held-out seeds; the target is the
median of its final metric. Budgets are the scale's steps, never seconds. results/targets/TASK-SCALE.json names all
runs; results/targets/records/TASK-SCALE.jsonl holds them, as `curvebench import` reads them.
"""
)
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--scale", default="quick", show_default=True, type=click.Choice(["quick", "standard", "paper"]))
@click.option("--trials", default=8, show_default=True, metavar="N", help="Trials of every baseline.")
@click.option("--seeds", default=5, show_default=True, metavar="N", help="Held-out runs of the winner.")
@click.option("--baseline", "baselines", multiple=True, metavar="NAME", help="Instead of momentum, nesterov, adam.")
@click.option("--jobs", default=1, show_default=True, metavar="N", help="Runs at a time, each with its own cores.")
@click.option("--on-card", is_flag=True, help="Put the target on the task's card, with the file it came from.")
@click.option("--records", default=RUNS, show_default=True, type=click.Path(path_type=Path), help="The runs' records.")
@click.option("--out", default=TARGETS, show_default=True, type=click.Path(path_type=Path), help="The results.")
def targets(
    tasks: tuple[str, ...], scale: str, trials: int, seeds: int, baselines: tuple[str, ...], jobs: int, on_card: bool,
    records: Path, out: Path,
) -> None:  # fmt: skip
    """Set the target of each TASK from tuned first-order baselines."""
    from curvebench.cli.bench import carry_out
    from curvebench.procedures.targets import BASELINES, conclude, held_out, keep, plan, state, winner, write
    from curvebench.schedule import Options, jobs_of
    from curvebench.spec import RunSpec
    from curvebench.store import Record, Store

    store = Store(records)

    def run(specs: list[RunSpec]) -> list[Record]:
        wanted = jobs_of(specs)
        carry_out(wanted, store, Options(jobs=jobs))
        found = [store.find(job.keys.run, job.keys.code, job.keys.machine) for job in wanted]
        return [record for record in found if record is not None]

    for task in tasks:
        todo = plan(task, scale, trials, seeds, baselines or BASELINES)
        seen = run([spec for pool in todo.pools for spec in pool.specs])
        best = winner(todo, {record.keys.run: record for record in seen})
        again = run(held_out(todo, best))
        content = conclude(todo, best, again, seen)
        path = write(out, content)
        keep(out, content, [*seen, *again])
        here = todo.task.at(scale).target
        if on_card:
            assert todo.task.path is not None
            state(todo.task.path, content, path)
        click.echo(
            f"{task:<26} {todo.task.metric.name} {content['target']:g} (card: {here:g}), {best['method']}, "
            f"{len(seen)} trials, {seeds} held-out runs: {path}"
        )
