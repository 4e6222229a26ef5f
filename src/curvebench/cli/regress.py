"""``curvebench regress``: is a kernel slower at HEAD than at BASE?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from curvebench.procedures.regress import Benchmark, Outcome, Plan


@click.command(
    epilog="""\b
Examples:
  curvebench regress main                              the working tree against main, every timed benchmark
  curvebench regress v0.1.0 HEAD --kernel mfac         two commits, the kernels whose name holds "mfac"
  curvebench regress main --kernel mfac --bisect       and the commit that made it slower
  curvebench regress main --detect 0.3 --seconds 20    look less hard

\b
Both commits are measured in one job: base, head, head, base, on one core, with the same benchmarks (those of the
checkout). The number of blocks follows from the noise; an alarm is a slow-down significantly above the tolerance, with
at most --alpha probability of any false alarm over all benchmarks (Holm).

\b
Exit code: 0 no kernel is slower, 1 one is (or raised at HEAD), 2 a mistake in what was asked.
"""
)
@click.argument("base")
@click.argument("head", default=".")
@click.option("--kernel", "kernels", multiple=True, metavar="WORD", help="Only benchmarks whose name holds WORD.")
@click.option("--tolerance", default=0.03, show_default=True, type=click.FloatRange(0, 1), help="What is not slower.")
@click.option("--detect", default=0.10, show_default=True, type=click.FloatRange(0, 10, min_open=True),
              help="The slow-down that must be found.")  # fmt: skip
@click.option(
    "--power", default=0.9, show_default=True, type=click.FloatRange(0.5, 0.999), help="With what probability."
)
@click.option("--alpha", default=0.05, show_default=True, type=click.FloatRange(1e-6, 0.5),
              help="Probability of any false alarm over the suite.")  # fmt: skip
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(5), help="At most, for one benchmark."
)
@click.option("--clock", default="cpu", show_default=True, type=click.Choice(["cpu", "wall"]),
              help="cpu is quieter; wall sees waiting too.")  # fmt: skip
@click.option("--bisect", "find", is_flag=True, help="Name the commit that made each slower kernel slower.")
@click.option("--repo", default=Path(), type=click.Path(path_type=Path), help="The checkout; by default here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def regress(
    base: str, head: str, kernels: tuple[str, ...], tolerance: float, detect: float, power: float, alpha: float,
    seconds: float, clock: str, find: bool, repo: Path, as_json: bool,
) -> None:  # fmt: skip
    """Compare the kernels of two commits. HEAD is by default the working tree, changes included."""
    from curvebench.procedures.regress import Plan, compare, discover, judge
    from curvebench.procedures.source_trees import trees

    if detect <= tolerance:
        raise click.BadParameter(f"{detect}: must be above --tolerance {tolerance}", param_hint="--detect")
    plan, root = Plan(tolerance, detect, power, alpha, seconds, clock), repo.resolve()
    found = discover(root / "benchmarks", kernels)
    outcomes: list[Outcome] = []
    with trees(root, base, head) as (older, newer):
        if not as_json:
            click.echo(f"BASE {older}\nHEAD {newer}\n{len(found)} benchmarks, at most {seconds:g} s each", err=True)
        with click.progressbar(found, label="comparing", file=sys.stderr, item_show_func=_shown) as bar:
            for benchmark in bar:
                outcomes.append(compare(older, newer, benchmark, plan, len(found)))
        judge(outcomes, plan)
    if find:
        _blame(root, base, head, found, outcomes, plan)
    if as_json:
        click.echo(json.dumps([outcome.to_json() for outcome in outcomes], indent=2))
    else:
        click.echo(_table(outcomes))
    sys.exit(1 if any(outcome.verdict in {"slower", "failed"} for outcome in outcomes) else 0)


def _shown(benchmark: Benchmark | None) -> str | None:
    return benchmark.name if benchmark else None


def _blame(
    root: Path, base: str, head: str, benchmarks: Sequence[Benchmark], outcomes: Sequence[Outcome], plan: Plan
) -> None:
    from curvebench.procedures.regress import bisect, compare, judge
    from curvebench.procedures.source_trees import between, trees

    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    for outcome in outcomes:
        if outcome.verdict != "slower":
            continue

        def slower(commit: str, benchmark: Benchmark = by_name[outcome.benchmark]) -> bool | None:
            with trees(root, base, commit) as (older, newer):
                seen = compare(older, newer, benchmark, plan)
            judge([seen], plan)
            return {"slower": True, "no change": False, "faster": False}.get(seen.verdict)

        commits = between(root, base, head)
        found = bisect(commits, slower, lambda text: click.echo(f"bisect: {text}", err=True))
        outcome.sentence = f"since {found[:10]}" if found else "bisect: a comparison could not be decided"


def _table(outcomes: Sequence[Outcome]) -> str:
    from curvebench.cli.text import columns

    rows = [("benchmark", "HEAD / BASE", "95 % interval", "p", "noise", "blocks", "detectable", "verdict", "")]
    for o in sorted(outcomes, key=lambda o: -(o.result.ratio if o.result else 0)):
        r = o.result
        numbers = (f"{r.ratio:.3f}", f"[{r.low:.3f}, {r.high:.3f}]", f"{r.p:.2g}", f"{r.noise:.1%}", str(r.n),
                   f"{o.detectable or 0:.0%}") if r else ("",) * 6  # fmt: skip
        rows.append((o.benchmark, *numbers, o.verdict, o.sentence))
    return columns(rows[1:], rows[0])
