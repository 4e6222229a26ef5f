"""Tuning as a resource: one stored quasi-random pool of equal size per (task, method), chosen on validation.

Each method gets the same number of trials, drawn from its card's search space by a scrambled Sobol sequence whose seed
is a function of (task, method), so that adding a method changes nobody else's pool. Trials run at a seed block that no
study uses. The winner is the trial with the best final value of the task's metric, which is never the test metric:
accuracy on the validation split, or the gap of the training objective where that is the task. A trial that diverges,
crashes or times out counts as a trial and cannot win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from curvebench import cards
from curvebench.cards import MethodCard, StudyCard, TaskCard
from curvebench.errors import CurvebenchError
from curvebench.schedule.plan import specify
from curvebench.schedule.study import Job
from curvebench.spec import RunSpec, Scalar, Status, digest, seed
from curvebench.store import Record, Store
from curvebench.store.tuned import tuned, tuned_path, write_tuned
from curvebench.types import Json

SEED_BLOCK = 1_000_000
"""Seed block of all trials; studies count theirs from 0."""
ENDED = (Status.REACHED, Status.BUDGET)
"""How a trial must end to be eligible."""


@dataclass(frozen=True)
class Pool:
    """The trials of one method on one task in one framework.

    Args:
        task: the task's card.
        method: the method's card.
        framework: where the trials run; both frameworks use the winner if the method is a twin.
        id: hash of everything that decides which trials there are.
        specs: one per trial; equal trials (a search space without a free hyperparameter) appear once.
    """

    task: TaskCard
    method: MethodCard
    framework: str
    id: str
    specs: tuple[RunSpec, ...]


def pools(study: StudyCard, trials: int) -> list[Pool]:
    """The pools that a study needs: one per (task, method), and per framework for a method with ``twin = false``.

    Raises:
        CurvebenchError: trials is not at least 1, or a card does not hold.
    """
    if trials < 1:
        raise CurvebenchError(f"--trials {trials}: must be at least 1")
    found = []
    for task_name in study.tasks:
        task = cards.task(task_name)
        for method_name in study.methods:
            method = cards.method(method_name)
            here = [framework for framework in study.frameworks if framework in method.frameworks]
            for framework in here[:1] if method.twin else here:
                found.append(_pool(study, task, method, framework, trials))
    return found


def sample(task: str, method: MethodCard, trials: int) -> list[dict[str, Scalar]]:
    """Points ``[trials]`` of the method's search space: scrambled Sobol, uniform in the value or in its logarithm."""
    from scipy.stats import qmc

    if not method.search:
        return [{}]
    names = sorted(method.search)
    sequence = qmc.Sobol(len(names), scramble=True, rng=seed("pool", task, method.name))
    points = sequence.random_base2(math.ceil(math.log2(trials)))[:trials] if trials > 1 else sequence.random(1)
    out = []
    for point in points:
        given: dict[str, Scalar] = {}
        for name, u in zip(names, point, strict=True):
            space = method.search[name]
            if space.scale == "log":
                value = space.low * (space.high / space.low) ** float(u)
            else:
                value = space.low + (space.high - space.low) * float(u)
            whole = isinstance(method.hyperparameters[name].default, int)
            given[name] = round(value) if whole else float(f"{value:.4g}")
        out.append(given)
    return out


def conclude(wanted: Sequence[Pool], jobs: Sequence[Job], store: Store, root: Path) -> list[Path]:
    """Write ``<root>/<task>/<method>.json`` from the stored trials of finished pools.

    Args:
        wanted: the pools.
        jobs: their trials with their keys.
        store: where the trials' records are.
        root: folder of tuned hyperparameters.

    Raises:
        StoreError: a result cannot be written.
        CurvebenchError: no trial of some pool ended with a finite metric.
    """
    keys = {job.spec.id: job.keys for job in jobs}
    paths = []
    for pool in wanted:
        trials = [keys[spec.id] for spec in pool.specs]
        records = [store.find(key.run, key.code, key.machine) for key in trials]
        content = choose(pool, [record for record in records if record is not None])
        paths.append(write_tuned(root, content, pool.method.twin))
    return paths


def choose(pool: Pool, records: Sequence[Record]) -> Json:
    """The content of the tuned file: the winner, what the whole pool cost, and every trial.

    Raises:
        CurvebenchError: no trial ended with a finite metric.
    """
    sign = 1.0 if pool.task.metric.direction == "min" else -1.0
    ended = [(sign * r.final.metric, r) for r in records if r.status in ENDED and r.final.metric is not None]
    if not ended:
        raise CurvebenchError(
            f"tune: no trial of {pool.method.name} on {pool.task.name} ended with a finite {pool.task.metric.name}: "
            "widen the search space on its card"
        )
    _, best = min(ended, key=lambda pair: (pair[0], pair[1].keys.run))
    return {
        "task": pool.task.name,
        "method": pool.method.name,
        "scale": pool.specs[0].scale,
        "framework": pool.framework,
        "pool": pool.id,
        "trials": len(pool.specs),
        "hyperparameters": dict(best.spec.hyperparameters),
        "metric": best.final.metric,
        "label": pool.task.metric.label,
        "cost": {
            "seconds": round(sum(r.seconds.total or 0.0 for r in records), 3),
            "oracle_calls": sum(r.consumed.oracle_calls or 0 for r in records),
            "gradient_equivalents": equivalents(records),
        },
        "runs": [
            {
                "run": r.keys.run,
                "status": r.status.value,
                "metric": r.final.metric,
                "crossing": None if r.crossing is None or r.status is Status.DIVERGED else asdict(r.crossing),
                "seconds": r.seconds.total,
                "hyperparameters": {n: v for n, v in r.spec.hyperparameters if n in pool.method.search},
            }
            for r in records
        ],
    }


def equivalents(records: Sequence[Record]) -> float | None:
    """Gradient-equivalents of a whole pool; None unless every trial that ran was counted."""
    known = [r.consumed.gradient_equivalents for r in records if r.consumed.step]
    counted = [value for value in known if value is not None]
    return round(sum(counted), 1) if counted and len(counted) == len(known) else None


def standing(pool: Pool, root: Path) -> Path | None:
    """Where this very pool is stored already: then none of its trials is run again, whatever else is tuned.

    Raises:
        StoreError: the file there is something else.
    """
    found = tuned(root, pool.task.name, pool.method.name, pool.framework, pool.method.twin)
    same = found is not None and found["pool"] == pool.id and found["framework"] == pool.framework
    return tuned_path(root, pool.task.name, pool.method.name, pool.framework, pool.method.twin) if same else None


def _pool(study: StudyCard, task: TaskCard, method: MethodCard, framework: str, trials: int) -> Pool:
    scale = task.at(study.scale)
    budget = study.budget_of(scale.budget)
    points = sample(task.name, method, trials)
    specs = {
        spec.id: spec
        for point in points
        for spec in [specify(task, method.name, method, framework, study.scale, budget, point, "tuned",
                             seed_block=SEED_BLOCK)]
    }  # fmt: skip
    identity = digest([task.name, method.name, framework, study.scale, trials, points])
    return Pool(task, method, framework, identity[:16], tuple(specs.values()))
