"""``curvebench run``: one method on one task, isolated and stored like the runs of a study."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curvebench.cli.bench import RECORDS, carry_out, import_from_here
from curvebench.errors import CardError, HyperparameterError
from curvebench.spec import FRAMEWORKS, RETRIABLE, SCALES, Budget, RunSpec, Status

if TYPE_CHECKING:
    from curvebench.cards import MethodCard
    from curvebench.store import Record


@click.command(
    epilog="""\b
Examples:
  curvebench run least-squares adam
  curvebench run least-squares adam --framework jax --seed 3 --set lr=0.01
  curvebench run digits-cnn mypkg.opt:MyOptimizer --needs gradient --scale quick
  curvebench run least-squares adam --tuned --json | jq .status

\b
The run is stored, and taken from the store when it is asked for again; --again runs it once more.
Exit code: 0 if the method ran, 1 if it crashed, timed out, ran out of memory or is unsupported.
"""
)
@click.argument("task")
@click.argument("method")
@click.option("--framework", type=click.Choice(FRAMEWORKS), help="By default torch where the method has it.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="The seed block.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A hyperparameter; may be repeated.")
@click.option("--tuned", is_flag=True, help="Start from the tuned hyperparameters, not from the card's defaults.")
@click.option("--needs", multiple=True, metavar="QUERY", help="What a method without a card asks for, e.g. gradient.")
@click.option("--scale", type=click.Choice(SCALES), default="quick", show_default=True, help="Which scale of the task.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps at most instead of the task's.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Seconds on the clock at most.")
@click.option(
    "--schedule", metavar="KIND[:KEY=V,...]", help="Of the learning rate instead of the task's, e.g. cosine:warmup=0.1."
)
@click.option(
    "--gradient-equivalents",
    type=click.FloatRange(min=0, min_open=True),
    metavar="G",
    help="Cost at most, in units of one gradient's flops.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:<number>.")
@click.option("--records", type=click.Path(path_type=Path, file_okay=False), help=f"Records, by default {RECORDS}.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Kill it after S seconds.")
@click.option("--again", is_flag=True, help="Run it even if it is stored.")
@click.option("--retry-failed", is_flag=True, help="Run it again if it is stored as crashed or timed out.")
@click.option("--json", "as_json", is_flag=True, help="Print the record.")
def run(
    task: str,
    method: str,
    framework: str | None,
    seed: int,
    settings: tuple[str, ...],
    tuned: bool,
    needs: tuple[str, ...],
    scale: str,
    steps: int | None,
    seconds: float | None,
    schedule: str | None,
    gradient_equivalents: float | None,
    device: str,
    records: Path | None,
    timeout: float | None,
    again: bool,
    retry_failed: bool,
    as_json: bool,
) -> None:
    """Run METHOD on TASK once, in a process of its own, and print what came out."""
    from curvebench.schedule import Options, jobs_of, plan
    from curvebench.store import Store

    import_from_here()
    task, method = in_order(task, method)
    if plan.smoking():
        click.echo(f"{plan.SMOKE} is set: at most {plan.SMOKE_SECONDS:g} s", err=True)
    limits = (steps, seconds, gradient_equivalents)
    spec = specify(task, method, framework, seed, settings, tuned, needs, scale, limits, device, schedule)
    store = Store(records or RECORDS)
    (job,) = jobs_of([spec])
    summary = carry_out([job], store, Options(timeout=timeout, retry_failed=retry_failed, again=again))
    record = summary.records[0] if summary.ran else store.find(job.keys.run, job.keys.code, job.keys.machine)
    if record is None:
        raise click.ClickException(f"the record vanished from {store.folder} while it was read")
    if as_json:
        click.echo(json.dumps(record.to_json(), indent=2, allow_nan=False))
    else:
        click.echo("\n".join(lines(record)))
        state = "stored" if summary.ran else "stored before (--again runs it once more)"
        click.echo(f"{state}: {store.folder / record.keys.run[:2] / record.name}", err=True)
    if record.status in RETRIABLE or record.status is Status.UNSUPPORTED:
        sys.exit(1)


def in_order(task: str, method: str) -> tuple[str, str]:
    """Task and method, also if they were named the other way round."""
    from curvebench import cards

    known = cards.names("tasks")
    return (method, task) if task not in known and method in known else (task, method)


def specify(
    task_name: str,
    reference: str,
    framework: str | None,
    seed: int,
    settings: Sequence[str],
    tuned: bool,
    needs: Sequence[str],
    scale: str,
    limits: tuple[int | None, float | None, float | None],
    device: str,
    schedule: str | None = None,
) -> RunSpec:
    """The run that the command line describes.

    Raises:
        CurvebenchError: a name, a hyperparameter or a scale that is not there.
    """
    from curvebench import cards
    from curvebench.cards import rate_schedule
    from curvebench.schedule import plan
    from curvebench.schedule.references import method_card

    task = cards.task(task_name)
    method = method_card(reference, tuple(sorted(plan.check_needs(needs))) or None, framework)
    chosen = framework_of(reference, method, framework)
    own = task.at(scale).budget
    stored = plan.stored_tuned(method, task_name, chosen) if tuned else None
    if tuned and stored is None:
        raise CardError(f"{reference} was never tuned on {task_name}: leave --tuned out, or run `curvebench tune`")
    given = {**(stored or {}), **dict(parse(setting) for setting in settings)}
    source = "given" if settings else "tuned" if stored else "card"
    steps, seconds, cost = limits
    budget = Budget(steps or own.steps, seconds or own.seconds, cost or own.gradient_equivalents)
    rates = None if schedule is None else rate_schedule.parse(schedule)
    return plan.specify(task, reference, method, chosen, scale, budget, given, source, device, seed, rates)


def framework_of(reference: str, method: MethodCard, wanted: str | None) -> str:
    """The framework that was asked for, else torch where the method has it.

    Raises:
        CardError: the method has no implementation in it.
    """
    if wanted is None:
        return "torch" if "torch" in method.frameworks else method.frameworks[0]
    if wanted not in method.frameworks:
        raise CardError(f"{reference}: no implementation in {wanted}: there is {' and '.join(method.frameworks)}")
    return wanted


def parse(setting: str) -> tuple[str, str]:
    """Split ``name=value``; the card knows the value's type.

    Raises:
        HyperparameterError: there is no ``=``.
    """
    name, equals, value = setting.partition("=")
    if not equals or not name.strip():
        raise HyperparameterError(f"--set {setting}: must read NAME=VALUE, e.g. --set lr=0.1")
    return name.strip(), value.strip()


def lines(record: Record) -> list[str]:
    """What a person wants to know of one run."""
    spec, time = record.spec, record.seconds
    settings = ", ".join(f"{name} = {value}" for name, value in spec.hyperparameters)
    out = [f"{spec.label}: {record.status.value} ({record.reason})", f"  hyperparameters  {settings} ({spec.source})"]
    if record.final.metric is not None:
        out.append(f"  {record.metric.label:<15}  {record.final.metric:.6g}")
    if record.final.test is not None:
        out.append(f"  {'test':<15}  {record.final.test:.6g}")
    for name, point in (("to target", record.crossing), ("consumed", record.consumed)):
        if point is not None and point.step is not None:
            seconds = "" if point.seconds is None else f", {point.seconds:.4g} s"
            out.append(f"  {name:<15}  {point.step} steps{seconds}, {point.oracle_calls} oracle calls")
    if time.step is not None and time.step.median is not None:
        out.append(f"  {'step':<15}  {1e3 * time.step.median:.4g} ms (median of {time.step.n})")
    if time.total is not None:
        out.append(f"  {'whole run':<15}  {time.total:.3g} s")
    return out
