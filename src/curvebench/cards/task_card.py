"""Task cards: objective, metric, target and budgets per scale; no method is named on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from curvebench.cards.base import MODULE, REMARK, STRICT, Card, Count, Name, Option, Problem, Seconds, Text, table
from curvebench.cards.rate_schedule import RateSchedule
from curvebench.errors import CardError, did_you_mean
from curvebench.spec import Budget, Query

CONSTANT = RateSchedule()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is plotted and compared with the target."""

    __pydantic_config__ = STRICT

    name: Annotated[Name, Field(description="its name in records")]
    label: Annotated[Text, Field(description="its name on axes")]
    direction: Annotated[Literal["min", "max"], Field(description="which way is better")]


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The known least value of the objective.

    Args:
        value: f*.
        certificate: the sentence that says why it is the minimum.
        tolerance: how far ``value`` may be from the truth, absolute.
    """

    __pydantic_config__ = STRICT

    value: Annotated[float, Field(description="least value of the objective")]
    certificate: Annotated[Text, Field(description="why this is the minimum")]
    tolerance: Annotated[float, Field(ge=0, description="absolute error of the value")]


@dataclass(frozen=True, kw_only=True)
class TaskScale:
    """Budget, batch and target of one scale of a task.

    Args:
        steps: optimiser steps at most.
        seconds: on-clock seconds at most, or None.
        gradient_equivalents: flops at most, in units of one gradient's, or None.
        batch: samples per step, or ``"full"``.
        evaluate_every: steps between evaluations.
        target: value of the metric that counts as reached.
        target_source: what set the target, where it is not what :meth:`TaskCard.target_source` says without it.
        schedule: of the learning rate; constant unless stated.
        options: handed to the task's module; :meth:`TaskCard.at` merges the card's own options into them.
    """

    __pydantic_config__ = STRICT

    steps: Annotated[Count, Field(description="optimiser steps at most")]
    seconds: Annotated[Seconds | None, Field(description="on-clock seconds at most")] = None
    gradient_equivalents: Annotated[Seconds | None, Field(description="cost at most, in units of one gradient")] = None
    batch: Annotated[Count | Literal["full"], Field(description="samples per step, or 'full'")]
    evaluate_every: Annotated[Count, Field(description="steps between evaluations")]
    target: Annotated[float, Field(description="value of the metric that counts as reached")]
    target_source: Annotated[
        Text | None, Field(description="what set the target: 'procedure: FILE', or 'literature: WHERE'")
    ] = field(default=None, metadata=REMARK)
    schedule: Annotated[RateSchedule, Field(description="of the learning rate, over the budget's steps")] = CONSTANT
    options: Annotated[Mapping[str, Option], Field(description="override [options] at this scale")] = field(
        default_factory=dict
    )

    @property
    def budget(self) -> Budget:
        """The run's limits."""
        return Budget(self.steps, self.seconds, self.gradient_equivalents)


QUICK_SECONDS = 60.0
"""What a run at ``quick`` scale takes at most, on the clock, where neither card nor study says so."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskCard(Card):
    """A task, as its card states it.

    Args:
        module: the Python module that builds it.
        dataset: name of a data set's card, or None if the task makes its own data.
        dtype: of parameters, data and arithmetic.
        offers: the queries it can answer.
        refuses: query -> the sentence that says why not, and what to use instead.
        options: handed to the module.
        scales: by ``quick``, ``standard``, ``paper``; read through :meth:`at`.
    """

    KIND: ClassVar[str] = "tasks"
    __pydantic_config__ = STRICT

    family: Annotated[Literal["cifar", "bert", "regression"], Field(description="which tables it appears in")]
    summary: Annotated[Text, Field(description="one sentence")]
    objective: Annotated[Text, Field(description="the objective in symbols")]
    module: Annotated[str, Field(pattern=MODULE, description="the Python module that builds the task")]
    dataset: Annotated[Name | None, Field(description="name of a data set's card")] = None
    dtype: Annotated[Literal["float32", "float64"], Field(description="of parameters, data and arithmetic")]
    offers: Annotated[tuple[Query, ...], Field(min_length=1, description="the oracle queries it can answer")]
    refuses: Annotated[Mapping[Query, Text], Field(description="query = why not, and what to use instead")] = field(
        default_factory=dict
    )
    metric: Annotated[Metric, Field(description="what is compared with the target")]
    optimum: Annotated[Optimum | None, Field(description="least value of the objective, if it is known")] = None
    options: Annotated[Mapping[str, Option], Field(description="handed to the module")] = field(default_factory=dict)
    scales: Annotated[
        Mapping[Literal["quick", "standard", "paper"], TaskScale],
        Field(min_length=1, description="budgets and targets"),
    ]

    def at(self, scale: str) -> TaskScale:
        """The scale with the card's options merged into its own.

        Raises:
            CardError: the task has no such scale.
        """
        if scale not in self.scales:
            raise CardError(f"{self.name}: no scale {scale!r}{did_you_mean(scale, self.scales)}")
        found = self.scales[scale]  # type: ignore[index]  # membership was checked above
        return replace(found, options={**self.options, **found.options})

    def cap(self, scale: str, budget: Budget) -> float | None:
        """Seconds on the clock that end a run: its budget's; :data:`QUICK_SECONDS` where none were ever set.

        A procedure that takes a quick scale's seconds away (so that no clock decides a result) has none.

        Raises:
            CardError: the task has no such scale.
        """
        if budget.seconds is None and scale == "quick" and self.at(scale).seconds is None:
            return QUICK_SECONDS
        return budget.seconds

    def target_source(self, scale: str) -> str:
        """What set a scale's target: the procedure, the known minimum, the literature, or a hand for the time being.

        Raises:
            CardError: the task has no such scale.
        """
        found = self.at(scale)
        if found.target_source is not None:
            return found.target_source
        if self.metric.name == "gap" and self.optimum is not None:
            return f"optimum gap: {found.target:g} above the proved minimum, a chosen distance"
        return f"provisional: by hand; `curvebench targets {self.name} --scale {scale}` would set it"


def problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Broken rules between keys of a task card."""
    offers = raw.get("offers")
    if isinstance(offers, list):
        words = [query for query in offers if isinstance(query, str)]
        for query in table(raw, "refuses"):
            if query in words:
                yield f"refuses.{query}", "also in offers: a query is either offered or refused"
        for query in sorted(query for query in set(words) if words.count(query) > 1):
            yield "offers", f"{query!r} is listed twice"
