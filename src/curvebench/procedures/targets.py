"""Targets set by a procedure: tuned first-order baselines, the winner rerun on held-out seeds, the target from those.

1. Every baseline gets the same number of trials from its card's search space, at a seed block that no study uses, under
   the scale's budget of steps (its seconds are left out: a target must not depend on how fast or busy a machine was);
   the trial with the best final metric wins (:mod:`curvebench.procedures.tune`).
2. The winner runs again at seed blocks that neither tuning nor any study uses.
3. The target is the median over these runs of the final metric, rounded to two digits so that the median run reaches
   it. The metric of a task with a known minimum is the gap to f*; below :data:`FLOOR` a gap is rounding, and the target
   stops there.

All runs are records; the file ``<root>/<task>-<scale>.json`` names them, ``<root>/records/<task>-<scale>.jsonl`` holds
them, one a line, as ``curvebench import`` reads them. A method that reaches the target has therefore
done what a tuned first-order method does with the whole budget; the interest is in how soon.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from curvebench import cards
from curvebench.cards import StudyCard, TaskCard
from curvebench.errors import CurvebenchError
from curvebench.procedures.tune import ENDED, Pool, choose, pools
from curvebench.schedule.plan import smoked, specify
from curvebench.spec import RunSpec
from curvebench.store import Record
from curvebench.store.files import explained, overwrite
from curvebench.types import Json

BASELINES = ("momentum", "nesterov", "adam")
HELD_OUT = 2_000_000
"""First seed block of the winner's runs."""
FLOOR = 1e-12
"""Least target of a gap: what float64 leaves of a difference of two numbers of order one, with a margin."""
SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """What will be run for one target.

    Args:
        task: the task's card.
        scale: which scale.
        trials: per baseline.
        seeds: held-out runs.
        pools: one per baseline.
    """

    task: TaskCard
    scale: str
    trials: int
    seeds: int
    pools: tuple[Pool, ...]


def plan(task: str, scale: str, trials: int, seeds: int, baselines: Sequence[str] = BASELINES) -> Plan:
    """The baselines' pools, in torch.

    Raises:
        CurvebenchError: an unknown task, scale or baseline, or numbers below 1.
    """
    if seeds < 1:
        raise CurvebenchError(f"--seeds {seeds}: must be at least 1")
    card = cards.task(task)
    card.at(scale)
    for name in baselines:
        if (family := cards.method(name).family) != "first-order":
            raise CurvebenchError(f"targets: {name} is {family}: targets come from first-order methods")
    study = cards.build(
        "studies",
        {"name": "targets", "title": "targets", "summary": "baselines of a target", "tasks": [task],
         "methods": list(baselines), "frameworks": ["torch"], "seeds": 1, "scale": scale, "hyperparameters": "card"},
        "targets",
    )  # fmt: skip
    assert isinstance(study, StudyCard)
    return Plan(card, scale, trials, seeds, tuple(_in_steps(pool) for pool in pools(study, trials)))


def _in_steps(pool: Pool) -> Pool:
    return replace(pool, specs=tuple(replace(s, budget=smoked(replace(s.budget, seconds=None))) for s in pool.specs))


def winner(plan: Plan, records: dict[str, Record]) -> Json:
    """The best baseline's content as :func:`curvebench.procedures.tune.choose` returns it.

    Args:
        plan: the plan.
        records: run id -> record of every trial.

    Raises:
        CurvebenchError: no baseline has a trial that ended with a finite metric.
    """
    found = []
    for pool in plan.pools:
        try:
            found.append(choose(pool, [records[spec.id] for spec in pool.specs if spec.id in records]))
        except CurvebenchError:
            continue  # one baseline may diverge throughout
    if not found:
        raise CurvebenchError(f"targets: no baseline ended with a finite {plan.task.metric.name} on {plan.task.name}")
    sign = 1.0 if plan.task.metric.direction == "min" else -1.0
    return min(found, key=lambda content: (sign * content["metric"], content["method"]))


def held_out(plan: Plan, content: Json) -> list[RunSpec]:
    """The winner's runs at seed blocks of their own."""
    method, scale = cards.method(content["method"]), plan.task.at(plan.scale)
    budget, given = replace(scale.budget, seconds=None), content["hyperparameters"]
    spec = specify(plan.task, method.name, method, "torch", plan.scale, budget, given, "tuned")
    return [replace(spec, seed_block=HELD_OUT + block) for block in range(plan.seeds)]


def conclude(plan: Plan, content: Json, records: Sequence[Record], trials: Sequence[Record]) -> Json:
    """The target and the runs behind it.

    Raises:
        CurvebenchError: fewer than half of the held-out runs ended with a finite metric.
    """
    ended = [r.final.metric for r in records if r.status in ENDED and r.final.metric is not None]
    if 2 * len(ended) <= plan.seeds:
        raise CurvebenchError(
            f"targets: {content['method']} ended on {len(ended)} of {plan.seeds} held-out seeds of {plan.task.name}: "
            "no target"
        )
    value = median(ended)
    gap = plan.task.metric.name == "gap"
    return {
        "schema": SCHEMA,
        "task": plan.task.name,
        "scale": plan.scale,
        "metric": plan.task.metric.name,
        "budget": {"steps": plan.task.at(plan.scale).steps},
        "target": rounded(max(value, FLOOR) if gap else value, str(plan.task.metric.direction)),
        "rule": "median of the winner's final metric over held-out seeds, two digits, rounded to the easy side",
        "winner": {"method": content["method"], "hyperparameters": content["hyperparameters"]},
        "held_out": {"median": value, "metrics": ended, "runs": [r.keys.run for r in records]},
        "trials": {
            "each": plan.trials,
            "baselines": [pool.method.name for pool in plan.pools],
            "seconds": round(sum(r.seconds.total or 0.0 for r in trials), 1),
            "runs": [{"run": r.keys.run, "method": r.spec.method, "status": r.status.value, "metric": r.final.metric}
                     for r in trials],
        },
    }  # fmt: skip


def rounded(value: float, direction: str) -> float:
    """Two significant digits, up for metrics that fall and down for metrics that rise, so that ``value`` meets it."""
    if value == 0:
        return 0.0
    digits = 1 - math.floor(math.log10(abs(value)))
    scaled = value * 10.0**digits
    whole = round(scaled) if math.isclose(scaled, round(scaled), rel_tol=1e-9) else None
    towards = math.ceil(scaled) if direction == "min" else math.floor(scaled)
    return float(f"{(towards if whole is None else whole) / 10.0**digits:.6g}")


def state(card: Path, content: Json, file: Path) -> None:
    """Put the target on a task's card, with the file it came from as its source.

    Raises:
        CurvebenchError: the card has no line ``target = ...`` in the scale's table.
        StoreError: the card cannot be written.
    """
    text = card.read_text(encoding="utf-8")
    pattern = (
        rf"(?m)^(\[scales\.{content['scale']}\]\n(?:(?!\[)[^\n]*\n)*?)target = [^\n]*(?:\ntarget_source = [^\n]*)?$"
    )
    line = f'target = {content["target"]!r}\ntarget_source = "procedure: results/targets/{file.name}"'
    edited, count = re.subn(pattern, lambda found: found[1] + line, text, count=1)
    if not count:
        raise CurvebenchError(f"{card.name}: no line 'target = ...' under [scales.{content['scale']}]")
    with explained(card, "nothing was changed"):
        overwrite(card, edited.encode())


def write(root: str | os.PathLike[str], content: Json) -> Path:
    """Write or replace the file of (task, scale).

    Raises:
        StoreError: the folder cannot be written.
    """
    path = Path(root) / f"{content['task']}-{content['scale']}.json"
    with explained(path, "nothing was changed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrite(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return path


def keep(root: str | os.PathLike[str], content: Json, records: Sequence[Record]) -> Path:
    """Write or replace the records behind a target, one a line.

    Raises:
        StoreError: the folder cannot be written.
    """
    path = Path(root) / "records" / f"{content['task']}-{content['scale']}.jsonl"
    lines = (json.dumps(record.to_json(), separators=(",", ":"), allow_nan=False) for record in records)
    with explained(path, "nothing was changed"):
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrite(path, ("\n".join(lines) + "\n").encode())
    return path
