"""The ledger: how often each query was asked, over how many samples, and how many random numbers were drawn.

The queries of a point are counted as they are asked, once per distinct answer: the loss that comes with a gradient is
not counted again, and a repeated question at the same point is free. ``samples`` counts one per sample and query
(a gradient of a batch of 128 adds 128), ``draws`` counts random scalars. Layer statistics of the batch's own targets
come from the gradient's backward and count once; those of sampled targets count once more for their backward, those of
type 2 once more for each output's.

What a method does with curvature between queries it reports itself, through the oracle's ``tally``: a *factor update*
is one matrix (or the vector that stands for one of rank one) into which a step folded new statistics; an *inverse
update* is one matrix that was inverted, decomposed or factorised anew, or one kept inverse that was changed. Quotients
element by element and closed forms that are only applied to a gradient are neither. ``bytes_communicated`` are bytes
sent to other workers; with one worker there are none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from curvebench.errors import UndeclaredQueryError, UnmetNeedError
from curvebench.spec import Query

REPORTED = ("factor_updates", "inverse_updates", "bytes_communicated")
"""Columns that the method itself reports, by ``tally``."""

COLUMNS: tuple[str, ...] = (*(q.value for q in Query), "samples", "draws", *REPORTED)
"""Names of the ledger's columns; the integer array carried by a jitted step has them in this order."""

COLUMN: Mapping[str, int] = {name: i for i, name in enumerate(COLUMNS)}
LOSS, GRADIENT, JVP, HVP, GGNVP, PER_SAMPLE_GRADIENT, LAYER_STATISTICS, LOSS_FUNCTION, SAMPLES, DRAWS = range(10)
FACTOR_UPDATES, INVERSE_UPDATES, BYTES_COMMUNICATED = range(10, len(COLUMNS))
N_QUERIES = len(Query)


def oracle_calls(counts: Iterable[int]) -> int:
    """Total number of queries of all kinds: the axis on which methods of every order can be compared."""
    return sum(list(counts)[:N_QUERIES])


def as_dict(counts: Iterable[int]) -> dict[str, int]:
    """Name the columns of a ledger row."""
    return {name: int(n) for name, n in zip(COLUMNS, counts, strict=True)}


def check_needs(
    method: str,
    needs: Collection[Query],
    task: str,
    offers: Collection[Query],
    refuses: Mapping[Query, str] | None = None,
) -> None:
    """Refuse a method whose needs a task cannot meet, before any training.

    Raises:
        UnmetNeedError: names the query, the method, the task and, where the task's card says it, the reason.
    """
    for need in needs:
        if need not in offers:
            why = (refuses or {}).get(
                need, f"the task offers {', '.join(sorted(q.value for q in offers)) or 'nothing'}"
            )
            raise UnmetNeedError(f"{method} needs {need} and {task} cannot answer it: {why}")


GRAPH_QUERIES = frozenset({Query.HVP, Query.GGNVP, Query.LAYER_STATISTICS})
"""Queries that a point must know of before its forward: they need its graph, or its layers captured."""


def unannounced(query: Query, needs: Collection[Query]) -> UndeclaredQueryError:
    """The error for a query that the method declares, but left out when it opened the point."""
    listed = ", ".join(sorted(str(q) for q in needs)) or "nothing"
    return UndeclaredQueryError(
        f"the method asked for {query} at a point opened with needs = [{listed}]: add {query.value!r} to at(needs=...)"
    )


def undeclared(query: Query, needs: Collection[Query]) -> UndeclaredQueryError:
    """The error for a query that the method's ``needs`` does not list."""
    listed = ", ".join(sorted(q.value for q in needs)) or "nothing"
    return UndeclaredQueryError(
        f"the method asked for {query} but declares needs = [{listed}]: add {query.value!r} to the card's needs"
    )
