"""Method cards: what an optimiser needs, its hyperparameters, their search space, its cost, where its code is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from curvebench.cards.base import STRICT, Card, Identifier, Target, Text, Url
from curvebench.cards.formula import evaluate
from curvebench.cards.hyperparameters import Hyperparameter
from curvebench.errors import CardError, HyperparameterError, did_you_mean
from curvebench.spec import Query, Scalar

Formula = float | str
RATES = ("lr", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where the method was published."""

    __pydantic_config__ = STRICT

    title: Annotated[Text, Field(description="title of the paper")]
    authors: Annotated[str, Field(description="authors, as the paper lists them")] = ""
    year: Annotated[int | None, Field(ge=1600, le=2200, description="year of publication")] = None
    url: Annotated[Url | None, Field(description="where it can be read")] = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """The interval that tuning draws a hyperparameter from."""

    __pydantic_config__ = STRICT

    low: Annotated[float, Field(description="lower end, inside the hyperparameter's range; > 0 on a log scale")]
    high: Annotated[float, Field(description="upper end, inside the hyperparameter's range; > low")]
    scale: Annotated[Literal["log", "linear"], Field(description="uniform in the logarithm, or in the value")] = "log"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one step asks of the oracle and what the optimiser keeps, as formulas.

    Args:
        step: queries of one step; a query that is absent is not asked.
        state: numbers (of the run's dtype) that the optimiser keeps between steps; None: not stated.
        varies: instead of ``step``, why the queries of a step follow no formula.
        host: float64 operations of the method's own on the host, per step, at least: between two queries, where nothing
            can stop it. Only for methods that have many of them; the cap on a run's seconds looks at it.
        refresh_every: steps after which the kinds of step repeat, for methods that refresh now and then.
    """

    __pydantic_config__ = STRICT

    step: Annotated[Mapping[Query, Formula], Field(description="oracle queries of one step: a number or a formula")] = (
        field(default_factory=dict)
    )
    state: Annotated[
        Formula | None, Field(description="numbers of optimiser state: a formula in d = number of parameters")
    ] = None
    varies: Annotated[Text | None, Field(description="instead of step: why a step's queries follow no formula")] = None
    host: Annotated[
        Formula, Field(description="float64 operations that the method itself does on the host in one step, at least")
    ] = 0
    refresh_every: Annotated[
        Formula, Field(description="steps after which cheap and dear steps repeat: a number or a formula")
    ] = 1


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """Where the code of a method is, and how its constructor is called."""

    __pydantic_config__ = STRICT

    target: Annotated[Target, Field(description="module:attribute, or file.py:attribute")]
    arguments: Annotated[
        Mapping[str, Any], Field(description="constructor arguments: '$name' is a hyperparameter, the rest is literal")
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodCard(Card):
    """A method, as its card states it.

    Args:
        family: what order of information it uses.
        needs: the queries it may ask; everything else raises.
        unscheduled: why no learning-rate schedule applies to a method that has a rate.
        twin: whether torch and jax run the same algorithm; if not, tables show two methods and ``twin_reason`` why.
    """

    KIND: ClassVar[str] = "methods"
    __pydantic_config__ = STRICT

    family: Annotated[
        Literal["zeroth-order", "first-order", "quasi-newton", "second-order"],
        Field(description="what order of information it uses"),
    ]
    summary: Annotated[Text, Field(description="one sentence")]
    needs: Annotated[tuple[Query, ...], Field(min_length=1, description="the oracle queries it asks")]
    twin: Annotated[bool, Field(description="torch and jax run the same algorithm")] = True
    twin_reason: Annotated[Text | None, Field(description="required if twin = false: why they differ")] = None
    unscheduled: Annotated[
        Text | None, Field(description="why a task's learning-rate schedule is not applied, though there is a rate")
    ] = None
    paper: Annotated[Paper | None, Field(description="where it was published")] = None
    hyperparameters: Annotated[
        Mapping[Identifier, Hyperparameter], Field(description="every hyperparameter that matters")
    ] = field(default_factory=dict)
    search: Annotated[Mapping[str, Search], Field(description="what tuning varies, and how far")] = field(
        default_factory=dict
    )
    cost: Annotated[Cost, Field(description="oracle queries and state of one step")] = field(default_factory=Cost)
    implementation: Annotated[
        Mapping[Literal["torch", "jax"], Implementation], Field(min_length=1, description="one table per framework")
    ]

    @property
    def rates(self) -> tuple[str, ...]:
        """The hyperparameters that a learning-rate schedule multiplies: ``lr`` and every ``..._lr``; may be none."""
        if self.unscheduled is not None:
            return ()
        return tuple(name for name in self.hyperparameters if name in RATES or name.endswith("_lr"))

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The frameworks with an implementation, sorted."""
        return tuple(sorted(self.implementation))

    def resolve(self, given: Mapping[str, Scalar]) -> tuple[tuple[str, Scalar], ...]:
        """All hyperparameters, sorted by name: ``given`` ones checked and converted, the others at their defaults.

        A string is read as the hyperparameter's type, as the command line needs it.

        Raises:
            HyperparameterError: unknown names and values outside their range; all of them are listed.
        """
        problems = [
            f"{self.name}: {name}: unknown hyperparameter{did_you_mean(name, self.hyperparameters)}"
            for name in given
            if name not in self.hyperparameters
        ]
        values = {}
        for name, hyperparameter in self.hyperparameters.items():
            value = given.get(name, hyperparameter.default)
            try:
                values[name] = hyperparameter.convert(value)
            except ValueError as error:
                problems.append(f"{self.name}: {name} = {value}: {error}")
        if problems:
            raise HyperparameterError("\n".join(problems))
        return tuple(sorted(values.items()))

    def arguments(
        self, framework: str, hyperparameters: Mapping[str, Scalar] | Iterable[tuple[str, Scalar]]
    ) -> dict[str, Any]:
        """The constructor's arguments: ``"$name"`` replaced by its value, lists turned into tuples.

        Raises:
            CardError: there is no implementation in ``framework``.
            HyperparameterError: a hyperparameter that the arguments refer to has no value.
        """
        if framework not in self.implementation:
            raise CardError(f"{self.name}: no implementation in {framework}: there is {' and '.join(self.frameworks)}")
        values = dict(hyperparameters)
        arguments = self.implementation[framework].arguments  # type: ignore[index]  # membership was checked above
        return {key: self._replace(value, values) for key, value in arguments.items()}

    def _replace(self, value: Any, values: Mapping[str, Scalar]) -> Any:
        if isinstance(value, str) and value.startswith("$"):
            if value[1:] not in values:
                raise HyperparameterError(f"{self.name}: {value[1:]}: no value given: pass what resolve() returned")
            return values[value[1:]]
        if isinstance(value, Mapping):
            return {key: self._replace(item, values) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return tuple(self._replace(item, values) for item in value)
        return value

    def queries_per_step(
        self, hyperparameters: Mapping[str, Scalar] | Iterable[tuple[str, Scalar]], *, d: int, batch: int = 1
    ) -> dict[str, float]:
        """Oracle queries that one step asks by the card's formulas; averages where a step does not always ask."""
        variables = self._variables(hyperparameters, d, batch)
        return {str(query): evaluate(formula, **variables) for query, formula in self.cost.step.items()}

    def state_numbers(
        self, hyperparameters: Mapping[str, Scalar] | Iterable[tuple[str, Scalar]], *, d: int, batch: int = 1
    ) -> float | None:
        """Numbers that the optimiser keeps between steps by the card's formula; None if the card does not say."""
        if self.cost.state is None:
            return None
        return evaluate(self.cost.state, **self._variables(hyperparameters, d, batch))

    def host_operations(
        self, hyperparameters: Mapping[str, Scalar] | Iterable[tuple[str, Scalar]], *, d: int, batch: int = 1
    ) -> float:
        """Operations of the method's own on the host in one step by the card's formula; 0 where it states none."""
        return evaluate(self.cost.host, **self._variables(hyperparameters, d, batch))

    def refresh_every(self, hyperparameters: Mapping[str, Scalar] | Iterable[tuple[str, Scalar]]) -> int:
        """Steps after which cheap and dear steps repeat, at least 1."""
        return max(1, round(evaluate(self.cost.refresh_every, **self._variables(hyperparameters, 1, 1))))

    @staticmethod
    def _variables(
        hyperparameters: Mapping[str, Scalar] | Iterable[tuple[str, Scalar]], d: int, batch: int
    ) -> dict[str, float]:
        numbers = {name: float(value) for name, value in dict(hyperparameters).items() if not isinstance(value, str)}
        return numbers | {"d": float(d), "batch": float(batch)}
