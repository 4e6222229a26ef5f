"""Study cards: which methods on which tasks, in which frameworks, with how many seeds and what budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from curvebench.cards.base import STRICT, Card, Count, Name, Problem, Seconds, Text
from curvebench.cards.rate_schedule import RateSchedule
from curvebench.spec import Budget


@dataclass(frozen=True, kw_only=True)
class StudyBudget:
    """Overrides the budget of every task of a study; None: the task's own."""

    __pydantic_config__ = STRICT

    steps: Annotated[Count | None, Field(description="optimiser steps at most, for every task")] = None
    seconds: Annotated[Seconds | None, Field(description="on-clock seconds at most, for every task")] = None
    gradient_equivalents: Annotated[
        Seconds | None, Field(description="cost at most, in units of one gradient, for every task")
    ] = None


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyCard(Card):
    """A study: the product of tasks, methods, frameworks and seed blocks.

    Args:
        seeds: number of seed blocks, 0, 1, ...
        scale: which scale of every task.
        hyperparameters: ``tuned`` reads the stored pools, ``card`` takes the defaults of the method cards.
        budget: overrides the tasks' own.
        schedule: overrides the tasks' own.
    """

    KIND: ClassVar[str] = "studies"
    __pydantic_config__ = STRICT

    summary: Annotated[Text, Field(description="one sentence")]
    tasks: Annotated[tuple[Name, ...], Field(min_length=1, description="names of task cards")]
    methods: Annotated[tuple[Name, ...], Field(min_length=1, description="names of method cards")]
    frameworks: Annotated[tuple[Literal["torch", "jax"], ...], Field(min_length=1, description="torch, jax or both")]
    seeds: Annotated[Count, Field(description="number of seed blocks")]
    scale: Annotated[Literal["quick", "standard", "paper"], Field(description="which scale of every task")]
    hyperparameters: Annotated[Literal["tuned", "card"], Field(description="tuned ones, or the cards' defaults")]
    budget: Annotated[StudyBudget | None, Field(description="overrides the tasks' budgets")] = None
    schedule: Annotated[RateSchedule | None, Field(description="overrides the tasks' learning-rate schedules")] = None

    def budget_of(self, own: Budget) -> Budget:
        """A task's limits with the study's in place of them where it has any."""
        limits = self.budget or StudyBudget()
        return Budget(
            limits.steps or own.steps,
            limits.seconds or own.seconds,
            limits.gradient_equivalents or own.gradient_equivalents,
        )


def problems(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Broken rules between keys of a study card."""
    for key in ("tasks", "methods", "frameworks"):
        entries = raw.get(key)
        if isinstance(entries, list):
            words = [entry for entry in entries if isinstance(entry, str)]
            for word in sorted(word for word in set(words) if words.count(word) > 1):
                yield key, f"{word!r} is listed twice"
