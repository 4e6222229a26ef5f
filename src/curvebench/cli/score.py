"""``curvebench score``: one score per method over tasks, with its doubt; also of AlgoPerf's logs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from curvebench.cli.text import columns

if TYPE_CHECKING:
    from curvebench.statistics.profiles import Scores

RECORDS = Path("results") / "records"


@click.command(
    epilog="""\b
Examples:
  curvebench score --study quick
  curvebench score --axis seconds --records results/records/reference
  curvebench score --format algoperf logs/self_tuning
  curvebench score --format algoperf --rule written logs/external_tuning --benchmark 0.5
  curvebench score --format algoperf time_to_targets.csv

\b
A score is the area under a performance profile for tau in [1, 4]: 1 is the best on every task, 0 never within 4 times
of the best. docs/statistics.md says how it is made and what its interval holds.
"""
)
@click.argument("place", required=False, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--format", "form", type=click.Choice(["records", "algoperf"]), default="records", help="What PLACE holds."
)
@click.option("--study", metavar="NAME", help="Only the runs that belong to this study.")
@click.option("--axis", default="oracle_calls", show_default=True, help="What costs are counted in.")
@click.option("--records", type=click.Path(path_type=Path, file_okay=False), help=f"Records, by default {RECORDS}.")
@click.option(
    "--rule",
    type=click.Choice(["released", "written"]),
    default="released",
    show_default=True,
    help="AlgoPerf's best trial: released, by fewest evaluations; written, by least time.",
)
@click.option("--benchmark", metavar="VERSION", help="AlgoPerf's version, 0.5 or 0.6; else told from the workloads.")
@click.option("--draws", type=click.IntRange(min=100), help="Of the bootstrap; by default 1000, 400 of many cells.")
@click.option("--fixed-tasks", is_flag=True, help="These tasks are all that is asked about, not a sample of more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(
    place: Path | None,
    form: str,
    study: str | None,
    axis: str,
    records: Path | None,
    rule: Literal["released", "written"],
    benchmark: str | None,
    draws: int | None,
    fixed_tasks: bool,
    as_json: bool,
) -> None:
    """Score methods over tasks: PLACE is a folder of records, or of AlgoPerf logs."""
    if form == "algoperf":
        if place is None:
            raise click.UsageError("--format algoperf needs the folder of the logs")
        _algoperf(place, rule, benchmark, draws, fixed_tasks, as_json)
    else:
        _records(place or records or RECORDS, study, axis, draws, fixed_tasks, as_json)


def _algoperf(
    place: Path,
    rule: Literal["released", "written"],
    benchmark: str | None,
    draws: int | None,
    fixed: bool,
    as_json: bool,
) -> None:
    from curvebench.report import algoperf

    result = algoperf.score(place, rule, benchmark, draws or 1000, fixed_workloads=fixed)
    for sentence in result.skipped:
        click.echo(f"left out: {sentence}", err=True)
    order = sorted(range(len(result.submissions)), key=lambda k: (-result.plain[k], result.submissions[k]))
    if as_json:
        rows = [
            {
                "submission": result.submissions[k],
                "score": float(result.plain[k]),
                **(_doubt(result.ours, k) if result.ours else {}),
                "time_to_target": {
                    w: float(t) if math.isfinite(t := result.times[k, i]) else None
                    for i, w in enumerate(result.workloads)
                },
            }
            for k in order
        ]
        click.echo(json.dumps({"benchmark": result.version.name, "rule": rule, "submissions": rows}, indent=2))
        return
    header = ["submission", "AlgoPerf score", *(["censored score", "95 %", "rank", "first"] if result.ours else [])]
    lines = [
        [result.submissions[k], f"{result.plain[k]:.4f}", *(_cells(result.ours, k) if result.ours else [])]
        for k in order
    ]
    click.echo(columns(lines, header))
    how = "fewest evaluations, as its released code" if rule == "released" else "least time, as its rules are written"
    base = len(result.version.base)
    there = sum(w in result.version.base for w in result.workloads)
    click.echo(f"AlgoPerf {result.version.name}: {there} of {base} workloads; best trial by {how}.")
    if result.ours is None:
        click.echo("Medians alone: without studies and trials there is no interval.")
    else:
        click.echo(
            "Censored score: the same profile from Kaplan-Meier curves over studies; 95 % of a bootstrap over "
            f"{'' if fixed else 'workloads, '}studies and trials; rank is the interval of ranks, "
            "first the chance of the highest score."
        )


def _records(place: Path, study: str | None, axis: str, draws: int | None, fixed: bool, as_json: bool) -> None:
    from curvebench import cards
    from curvebench.cli.records import read
    from curvebench.cli.report import choose
    from curvebench.report.build import pools_in
    from curvebench.report.scoring import profile
    from curvebench.statistics.power import CLAIM, RANK, word
    from curvebench.store import Store

    chosen = choose(read(Store(place)), place, None, study)
    made = profile(chosen, axis, pools_in(cards.root() / "results" / "tuned"), draws, fixed_tasks=fixed)
    order = sorted(range(len(made.methods)), key=lambda k: (-made.scores.score[k], made.methods[k]))
    if as_json:
        rows = [
            {
                "method": made.methods[k][0],
                "framework": made.methods[k][1],
                "score": float(made.plain[k]),
                **_doubt(made.scores, k),
            }
            for k in order
        ]
        report = {"axis": axis, "tasks": made.tasks, "seeds": made.seeds, "methods": rows, "notes": made.notes}
        click.echo(json.dumps(report, indent=2))
        return
    header = ["method", "framework", "censored score", "95 %", "ranks", "first", "plain"]
    lines = [[made.methods[k][2], made.methods[k][1], *_cells(made.scores, k), f"{made.plain[k]:.3f}"] for k in order]
    click.echo(f"{axis.replace('_', ' ')} to target, {len(made.tasks)} tasks: {', '.join(made.tasks)}")
    click.echo(columns(lines, header))
    strength = {"nothing": "too few to compare", "look": "to look", "claim": "to claim a difference", "rank": "to rank"}
    click.echo(
        f"{made.seeds} seeds in the smallest cell: {strength[word(made.seeds)]} ({CLAIM} to claim, {RANK} to rank)."
    )
    for note in made.notes:
        click.echo(note)


def _cells(scores: Scores, k: int) -> list[str]:
    return [
        f"{scores.score[k]:.3f}",
        f"[{scores.low[k]:.2f}, {scores.high[k]:.2f}]",
        f"{scores.rank_low[k]}-{scores.rank_high[k]}",
        f"{scores.first[k]:.2f}",
    ]


def _doubt(scores: Scores, k: int) -> dict[str, Any]:
    return {
        "censored": float(scores.score[k]),
        "interval": [float(scores.low[k]), float(scores.high[k])],
        "ranks": [int(scores.rank_low[k]), int(scores.rank_high[k])],
        "first": float(scores.first[k]),
    }
