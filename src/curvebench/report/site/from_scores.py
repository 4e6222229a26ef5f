"""Performance profiles and best of k as ``report.json`` has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from curvebench.errors import StoreError
from curvebench.report import best_of_k, scoring
from curvebench.report.notes import Pools
from curvebench.report.site.from_tables import finite
from curvebench.report.site.model import Pool, Profile, Scored, Tuning
from curvebench.statistics.profiles import GRID
from curvebench.store import Record
from curvebench.types import FloatArray

THIN = 2
"""Of AlgoPerf's hundred points of tau every second is drawn: a step curve of 50 looks the same."""


def profiles(records: Sequence[Record], pools: Pools | None) -> list[Profile]:
    """One per axis on which the records can be compared at all."""
    found = []
    for axis in scoring.AXES:
        try:
            found.append(profile(scoring.profile(records, axis, pools)))
        except StoreError:
            continue  # no target, or times of several machines: the task pages say which
    return found


def profile(made: scoring.Profile) -> Profile:
    """Scores and bands of every method on one axis."""
    s = made.scores
    order = sorted(range(len(made.methods)), key=lambda k: (int(s.rank[k]), made.methods[k]))
    return Profile(
        axis=made.axis,
        tasks=list(made.tasks),
        seeds=made.seeds,
        tau=thin(GRID),
        methods=[
            Scored(
                method=made.methods[k][0],
                label=made.methods[k][2],
                framework=made.methods[k][1],
                score=float(s.score[k]),
                low=float(s.low[k]),
                high=float(s.high[k]),
                rank=int(s.rank[k]),
                rank_low=int(s.rank_low[k]),
                rank_high=int(s.rank_high[k]),
                first=float(s.first[k]),
                plain=float(made.plain[k]),
                rho=thin(s.band.rho[k]),
                rho_low=thin(s.band.low[k]),
                rho_high=thin(s.band.high[k]),
            )
            for k in order
        ],
        notes=list(made.notes),
    )


def thin(values: FloatArray) -> list[float]:
    """Every :data:`THIN`-th value, four digits, the last one always."""
    kept = np.append(np.arange(0, values.size - 1, THIN), values.size - 1)
    return [float(f"{v:.4g}") for v in values[kept].tolist()]


def tunings(folder: Path, tasks: Iterable[str]) -> list[Tuning]:
    """Best of k of the stored pools of some tasks; empty where there are none."""
    wanted = set(tasks)
    try:
        found = best_of_k.tunings(folder)
    except StoreError:
        return []  # nothing tuned, or nothing that ended with a number
    return [tuning(one) for one in found if one.task.name in wanted]


def tuning(one: best_of_k.Tuning) -> Tuning:
    """One task's pools."""
    return Tuning(
        task=one.task.name,
        title=one.task.title,
        metric_label=one.task.metric.label,
        direction=one.task.metric.direction,
        geometric=one.geometric,
        worst=one.worst,
        pools=[
            Pool(
                pool.method,
                pool.framework,
                pool.trials,
                pool.failed,
                *([finite(v) for v in values.tolist()] for values in curves(pool)),
            )
            for pool in one.pools
        ],
    )


def curves(pool: best_of_k.Pool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Expected best, its band and the cost ``[N]``."""
    return pool.best.expected, pool.best.low, pool.best.high, pool.best.seconds
