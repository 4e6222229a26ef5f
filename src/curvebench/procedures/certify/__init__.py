"""The certificate: what the tasks, oracles and methods state about themselves, measured.

No suite certifies itself by passing its tests: the statements here are the field's own (rates, invariances, minima,
identities), each with a measured value and the interval that it must fall into. A
statement is readable alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from curvebench import cards
from curvebench.errors import MissingPackageError, UnknownNameError
from curvebench.procedures.certify import derivatives, exactness, invariance, rates
from curvebench.procedures.certify.lab import problem
from curvebench.procedures.certify.statement import Finding, Measured, Statement, check

__all__ = ["Finding", "Measured", "Statement", "certify", "check", "regression", "statements"]

SHORT = {"hedging-entropic": {"steps": 3}, "hedging-heston": {"steps": 3}}
"""Unrolled recurrences are checked over three steps."""


def statements() -> list[Statement]:
    """All statements, in the order in which they are printed."""
    return [
        Statement(
            "derivatives",
            "every query that a regression task without files of its own offers agrees with central differences; "
            "value: largest relative error",
            _derivatives, high=1e-6,
        ),
        Statement(
            "twins",
            "torch and jax give the same loss and gradient at the initial parameters of every such task in float64; "
            "value: largest relative difference",
            _twins, high=1e-12,
        ),
        *invariance.statements(),
        *rates.statements(),
        *exactness.statements(),
    ]  # fmt: skip


def certify(names: Sequence[str] = ()) -> Iterator[Finding]:
    """Measure all statements, or those named.

    Raises:
        UnknownNameError: no such statement.
        MissingPackageError: torch is not installed: nothing can be measured.
    """
    found = statements()
    known = [statement.name for statement in found]
    for name in names:
        if name not in known:
            raise UnknownNameError("statement", name, known)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingPackageError("torch", "torch", "certify") from error
    torch.set_num_threads(1)
    yield from check(statement for statement in found if not names or statement.name in names)


def regression() -> list[str]:
    """The regression tasks that run everywhere: those that need a download are checked where their data are (tests)."""
    found = []
    for name in cards.names("tasks"):
        card = cards.task(name)
        here = card.dataset is None or cards.dataset(card.dataset).source != "download"
        if card.family == "regression" and here:
            found.append(name)
    return found


def _derivatives() -> Measured:
    worst = {}
    for name in regression():
        found = derivatives.errors(problem(name, **SHORT.get(name, {})), cards.task(name).offers)
        query = max(found, key=lambda key: found[key])
        worst[f"{query} of {name}"] = found[query]
    top = max(worst, key=lambda key: worst[key])
    return Measured(worst[top], f"{len(worst)} tasks; the largest is {top}")


def _twins() -> Measured:
    try:
        import jax
    except ModuleNotFoundError as error:
        raise MissingPackageError("jax", "jax", "the comparison of torch with jax") from error
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)  # programs of microseconds: compile them fast
    try:
        worst = {name: derivatives.twin_error(problem(name, **SHORT.get(name, {}))) for name in regression()}
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    top = max(worst, key=lambda key: worst[key])
    return Measured(worst[top], f"{len(worst)} tasks; the largest is {top}")
