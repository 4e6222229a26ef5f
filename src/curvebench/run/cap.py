"""A step that cannot fit into a run's seconds is refused before the first one, by the method card's cost formula."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from curvebench.cards import MethodCard
from curvebench.errors import UnmetNeedError
from curvebench.spec import Query, RunSpec

MANY = 100
"""Queries a step below which no loss is measured: one step of so few is no obstacle."""
REUSED = 10.0
"""A torch method that asks for losses alone may share most of a loss's work between queries, and is stopped between two
of them where the seconds run out: it is refused only where the prediction is beyond the cap by this factor."""
SAMPLE = 1_000_000
"""Numbers on which the machine's pace is measured."""


def check_cap(
    method: MethodCard,
    spec: RunSpec,
    cap: float | None,
    *,
    dimension: int,
    batch: int,
    loss_seconds: Callable[[], float],
    pace: Callable[[], float] | None = None,
) -> None:
    """Refuse a method whose one step is predicted to take longer than all the run's seconds.

    ``predicted = sum_q queries_q(d, batch, hyperparameters) * seconds of one loss``: no query costs less than a loss;
    and, where the card has a formula for what the method itself computes on the host, between two queries where
    nothing can stop it: ``predicted = operations(d, batch, hyperparameters) * seconds of one``.

    Args:
        method: its card, with the formulas.
        spec: the run.
        cap: its seconds, or None.
        dimension: number of parameters.
        batch: samples per step.
        loss_seconds: measures one loss on the step's batch; called only if a step asks for many queries.
        pace: measures the seconds of one host operation; by default :func:`seconds_per_operation`.

    Raises:
        UnmetNeedError: names the queries or operations of one step, the predicted cost and the cap.
    """
    if cap is None:
        return
    own = method.host_operations(spec.hyperparameters, d=dimension, batch=batch)
    if own and own * (each := (pace or seconds_per_operation)()) > cap:
        raise UnmetNeedError(
            f"one step of {method.name} on {spec.task} takes {own:,.0f} operations of its own by its card's formula: "
            f"at least {own * each:,.0f} s at {each * 1e9:.3g} ns each, and the cap of the run is {cap:g} s"
        )
    queries = method.queries_per_step(spec.hyperparameters, d=dimension, batch=batch)
    total = sum(queries.values())
    if total < MANY:
        return
    each = loss_seconds()
    stoppable = spec.framework == "torch" and set(spec.needs) <= {str(Query.LOSS)}
    if total * each > cap * (REUSED if stoppable else 1.0):
        asked = " and ".join(f"{count:,.0f} x {query}" for query, count in queries.items())
        raise UnmetNeedError(
            f"one step of {method.name} on {spec.task} asks {asked} by its card's formula: at least "
            f"{total * each:,.0f} s at {each * 1e3:.3g} ms a loss, and the cap of the run is {cap:g} s"
        )


def seconds_per_operation() -> float:
    """Seconds of one float64 operation of NumPy on a long array, the least of three."""
    numbers = np.ones(SAMPLE)
    seen = []
    for _ in range(3):
        began = time.perf_counter()
        numbers * numbers
        seen.append(time.perf_counter() - began)
    return min(seen) / SAMPLE
