"""A step that cannot fit into a run's seconds is refused before the first one, by the method card's cost formula."""

from __future__ import annotations

from collections.abc import Callable

from curvebench.cards import MethodCard
from curvebench.errors import UnmetNeedError
from curvebench.spec import Query, RunSpec

MANY = 100
"""Queries a step below which nothing is predicted: one step of so few is no obstacle."""
REUSED = 10.0
"""A torch method that asks for losses alone may share most of a loss's work between queries, and is stopped between two
of them where the seconds run out: it is refused only where the prediction is beyond the cap by this factor."""


def check_cap(
    method: MethodCard, spec: RunSpec, *, dimension: int, batch: int, loss_seconds: Callable[[], float]
) -> None:
    """Refuse a method whose one step is predicted to take longer than all the run's seconds.

    ``predicted = sum_q queries_q(d, batch, hyperparameters) * seconds of one loss``: no query costs less than a loss.

    Args:
        method: its card, with the formulas.
        spec: the run, with the seconds.
        dimension: number of parameters.
        batch: samples per step.
        loss_seconds: measures one loss on the step's batch; called only if a step asks for many queries.

    Raises:
        UnmetNeedError: names the queries of one step, the predicted cost and the cap.
    """
    cap = spec.budget.seconds
    if cap is None:
        return
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
