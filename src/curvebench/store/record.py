"""The schema of a record: what came out of one run, typed, validated on reading, and numbered.

A key that is added, removed or changes its meaning is a new schema number and one entry in :data:`MIGRATIONS`; so a
record either says exactly what this module says or is refused with a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from curvebench.errors import StoreError
from curvebench.spec import RETRIABLE, RunSpec, Status
from curvebench.types import Json

SCHEMA = 3
"""The schema that this curvebench writes, and the newest that it reads."""


def _work_and_contention(data: Json) -> Json:
    """Schema 1 knew no flops and no other load than the average before the start: what it did not measure is null."""
    curve = data.get("curve") or {}
    if "step" in curve:
        curve["gradient_equivalents"] = [None] * len(curve["step"])
    data["work"] = None
    return data


def _schedule_and_reported(data: Json) -> Json:
    """Schema 2 knew constant rates alone, no budget in gradient-equivalents, and did not ask methods what they updated.

    A budget that is not there is written by leaving its key out, then as now.
    """
    reported = ("factor_updates", "inverse_updates", "bytes_communicated")
    if isinstance(spec := data.get("spec"), dict):
        spec.setdefault("schedule", "constant")
    if isinstance(ledger := data.get("ledger"), dict):
        data["ledger"] = {**dict.fromkeys(reported), **ledger}
    if isinstance(work := data.get("work"), dict):
        work.setdefault("ledger", {})
    return data


MIGRATIONS: dict[int, Callable[[Json], Json]] = {1: _work_and_contention, 2: _schedule_and_reported}
"""``MIGRATIONS[n]`` turns a record of schema n into one of schema n + 1; it gets a copy and may change it in place."""


class RecordError(StoreError):
    """Something is not a record: not an object, a key too many or too few, a value of the wrong type."""


class NewerSchemaError(StoreError):
    """A record was written by a newer curvebench. The record is fine; this curvebench is too old to read it."""


def read_spec(value: object) -> RunSpec:
    """Turn the ``spec`` of a record into a :class:`RunSpec`, with the errors that pydantic understands."""
    if isinstance(value, RunSpec):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    try:
        return RunSpec.from_json(value)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"is not a run spec: {error}") from error


def null_is_empty(value: object) -> object:
    """Read null as an empty object: a run that failed early has nothing to say here."""
    return {} if value is None else value


Real: TypeAlias = Annotated[float, Strict()]
Whole: TypeAlias = Annotated[int, Strict()]
Flag: TypeAlias = Annotated[bool, Strict()]
Count: TypeAlias = Annotated[int, Strict()] | Annotated[float, Strict()]
Hex16: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Hex64: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Tally: TypeAlias = dict[str, Count | tuple[str, ...] | None]

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


@dataclass(frozen=True, config=STRICT)
class Keys:
    """What must match for a run to be skipped. Hex digits: 16 of the run, 64 of the code, 64 of the machine."""

    run: Hex16
    code: Hex64
    machine: Hex64

    @property
    def stem(self) -> str:
        """The file name without attempt: ``<run>-<code8>-<machine8>``."""
        return f"{self.run}-{self.code[:8]}-{self.machine[:8]}"


@dataclass(frozen=True, config=STRICT)
class Title:
    """What a table calls things, so that it needs no card."""

    method: str
    task: str
    method_family: str
    task_family: str
    twin: Flag


@dataclass(frozen=True, config=STRICT)
class Metric:
    """What is measured: ``direction`` says which way is better, ``optimum`` is f* where known, in units of the loss."""

    name: str
    label: str
    direction: Literal["min", "max"]
    target: Real | None
    optimum: Real | None


@dataclass(frozen=True, config=STRICT)
class Curve:
    """The evaluations in order, lists of equal length; ``None`` where a value was not finite.

    Args:
        step: optimiser steps done.
        seconds: on-clock seconds.
        oracle_calls: queries answered.
        gradient_equivalents: flops over those of one gradient.
        metric: the task's metric, on the data that the card names.
        loss: the training objective.
        test: the metric on held-out data, where the task has any.
    """

    step: tuple[Whole, ...] = ()
    seconds: tuple[Real | None, ...] = ()
    oracle_calls: tuple[Count, ...] = ()
    gradient_equivalents: tuple[Real | None, ...] = ()
    metric: tuple[Real | None, ...] = ()
    loss: tuple[Real | None, ...] = ()
    test: tuple[Real | None, ...] = ()

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the lists must have equal length, not {lengths}")


@dataclass(frozen=True, config=STRICT)
class Final:
    """The last evaluation; ``None`` where there was none or it was not finite."""

    metric: Real | None = None
    loss: Real | None = None
    test: Real | None = None


@dataclass(frozen=True, config=STRICT)
class Axes:
    """A point on every axis: optimiser steps, on-clock seconds, queries answered, flops in units of one gradient."""

    step: Whole | None = None
    seconds: Real | None = None
    oracle_calls: Count | None = None
    gradient_equivalents: Real | None = None


@dataclass(frozen=True, config=STRICT)
class StepTime:
    """Seconds of one step: quantiles over ``n`` of them, and the mean, which alone shows what is rare and dear."""

    median: Real | None
    p10: Real | None
    p90: Real | None
    n: Whole
    mean: Real | None = None


@dataclass(frozen=True, config=STRICT)
class Seconds:
    """Where the time went. Only steps are on the clock; compilation and the first step are counted apart.

    Args:
        step: all steps after the first.
        plain: those of them that refresh no curvature; None where all steps are of one kind.
        refresh: those that do.
        total: of the run's process from its start to its end, as its parent saw it, with the replay that counts work;
            of a run that no study made, without that.
    """

    setup: Real | None = None
    compilation: Real | None = None
    cache: Literal["hit", "miss"] | None = None
    first_step: Real | None = None
    step: StepTime | None = None
    plain: StepTime | None = None
    refresh: StepTime | None = None
    evaluation: Real | None = None
    total: Real | None = None


@dataclass(frozen=True, config=STRICT)
class Cost:
    """Leading-term flops and unfused bytes of a piece of program."""

    flops: Real
    bytes: Real


@dataclass(frozen=True, config=STRICT)
class Work:
    """What a step computes, counted on an untimed replay after the run.

    Args:
        gradient: one gradient of the task at its batch.
        step: mean over the replayed steps.
        plain: the cheapest of them.
        refresh: the dearest, None where all cost the same.
        steps: how many were replayed: one period of the method.
        oracle_calls: queries of the replayed steps.
        ledger: the ledger's columns per step, mean over the replayed ones; None where a column is not known.
        unknown: operations that no formula knows; each is entered as one flop per element.
    """

    gradient: Cost
    step: Cost
    plain: Cost
    refresh: Cost | None
    steps: Whole
    oracle_calls: Count
    unknown: tuple[str, ...] = ()
    ledger: dict[str, Count | None] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Memory:
    """Bytes. Where something cannot be measured it is None, never 0, and ``how`` says so.

    Args:
        peak_bytes: peak of the whole run above the process before parameters.
        parameter_bytes: of the parameters.
        state_bytes: of the optimiser's state between steps.
        state: the same by kind: moments, factors, inverses, window, history, masks, other.
        state_formula: what the card's formula says, None where it states none.
        step_bytes: peak of one step above what stands between steps, measured on a replay.
        compiled: the compiler's account of a step: arguments, outputs, aliased, temporary.
        how: how the peak was measured.
        step_how: how the step's was.
    """

    peak_bytes: Whole | None = None
    parameter_bytes: Whole | None = None
    state_bytes: Whole | None = None
    state: dict[str, Whole] = Field(default_factory=dict)
    state_formula: Whole | None = None
    step_bytes: Whole | None = None
    compiled: dict[str, Whole] | None = None
    how: str | None = None
    step_how: str | None = None


@dataclass(frozen=True, config=STRICT)
class Git:
    """The commit of the checkout that ran, and whether it had changes."""

    commit: str
    dirty: Flag


@dataclass(frozen=True, config=STRICT)
class Provenance:
    """How to do it again: the command, when (ISO 8601, UTC), the versions, the machine, what else was running.

    Args:
        threads: CPU threads that the run was pinned to.
        concurrent: how many runs shared the machine, 1 when it was alone.
        cpu_wall_ratio: CPU seconds per wall second of the steps, the proof of ``threads``.
        load: one-minute load average before the start.
        others: share of the run's cores that other processes used meanwhile.
        steal: share of its time that the machine itself was not given by its host.
        busy: why its times are doubtful; None if the machine was its own.
        thread_settings: what the framework, BLAS and the environment were set to.
    """

    command: str
    started: str
    git: Git | None
    versions: dict[str, str]
    machine: dict[str, Any]
    threads: Whole | None
    concurrent: Annotated[int, Strict(), Field(ge=1)]
    cpu_wall_ratio: Real | None = None
    load: Real | None = None
    others: Real | None = None
    steal: Real | None = None
    busy: str | None = None
    thread_settings: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Record:
    """One run, finished: what it was, how it ended, what it cost. Written once, never changed.

    Args:
        reused: its curve is taken for a run of another machine, so its times say nothing here. Not stored.
    """

    schema: Whole
    keys: Keys
    attempt: Annotated[int, Strict(), Field(ge=1)]
    spec: Annotated[RunSpec, PlainValidator(read_spec)]
    title: Title
    status: Status
    reason: str
    metric: Metric
    curve: Annotated[Curve, BeforeValidator(null_is_empty)]
    final: Annotated[Final, BeforeValidator(null_is_empty)]
    crossing: Axes | None
    consumed: Annotated[Axes, BeforeValidator(null_is_empty)]
    ledger: Annotated[Tally, BeforeValidator(null_is_empty)]
    seconds: Annotated[Seconds, BeforeValidator(null_is_empty)]
    memory: Annotated[Memory, BeforeValidator(null_is_empty)]
    provenance: Provenance
    work: Work | None
    reused: Flag = False

    def __post_init__(self) -> None:
        if self.status is Status.REACHED and self.crossing is None:
            raise ValueError("status 'reached' needs a crossing: where was the target met?")

    @property
    def name(self) -> str:
        """The file name: ``<run>-<code8>-<machine8>-<attempt>.json``."""
        return f"{self.keys.stem}-{self.attempt}.json"

    @property
    def retriable(self) -> bool:
        """Whether ``--retry-failed`` would try this run again."""
        return self.status in RETRIABLE

    def to_json(self) -> Json:
        """Return plain JSON types, without NaN; :meth:`from_json` inverts it."""
        out = asdict(self)
        del out["reused"]
        out["spec"] = self.spec.to_json()
        out["status"] = self.status.value
        plain: Json = plain_json(out)
        return plain

    @classmethod
    def from_json(cls, data: object, *, plain: bool = False) -> Record:
        """Validate a record of this schema, or migrate an older one first. NaN and infinities are read as null.

        Args:
            data: the record.
            plain: it comes out of JSON text without NaN, so that it need not be copied into JSON types first.

        Raises:
            NewerSchemaError: the record's schema is newer than :data:`SCHEMA`.
            RecordError: not a record; names the key, and what is wrong with it.
        """
        if not isinstance(data, dict):
            raise RecordError("not a record: the content is not a JSON object")
        data = migrate(data if plain else plain_json(data))
        if "reused" in data:
            raise RecordError("not a record: reused: is not a key of a record")
        try:
            return ADAPTER.validate_python(data)
        except ValidationError as error:
            raise RecordError(f"not a record: {explain(error)}") from error


ADAPTER: TypeAdapter[Record] = TypeAdapter(Record)


def migrate(data: Json) -> Json:
    """Bring a record to the present schema, one number at a time.

    Raises:
        NewerSchemaError: its schema is newer than this curvebench.
        RecordError: it has no schema number, or one that no migration starts from.
    """
    schema = data.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise RecordError(f"not a record: schema: must be a whole number, not {schema!r}")
    if schema > SCHEMA:
        raise NewerSchemaError(
            f"written by a newer curvebench (record schema {schema}, this one reads up to {SCHEMA}): "
            "upgrade curvebench to use it"
        )
    while schema < SCHEMA:
        if schema not in MIGRATIONS:
            raise RecordError(f"not a record: no migration leads from schema {schema} to {SCHEMA}")
        data = MIGRATIONS[schema](data)
        schema += 1
        data["schema"] = schema
    return data


def plain_json(value: Any) -> Any:
    """Copy ``value`` into JSON types: tuples become lists, NumPy scalars Python ones, NaN and infinities None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)) or type(value) is str:
        return value
    if isinstance(value, str):  # a word of an enumeration
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, without importing NumPy
        return plain_json(value.tolist())
    raise RecordError(f"not a record: {type(value).__name__} {value!r} has no JSON form")


def explain(error: ValidationError) -> str:
    """Say in one line which keys are wrong and why, the first three of them."""
    problems = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"] if part not in ("int", "float")) or "record"
        text = str(problem["msg"]).removeprefix("Value error, ")
        if problem["type"] == "missing":
            text = "is missing"
        elif problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            text = "is not a key of a record"
        sentence = f"{place}: {text[:1].lower()}{text[1:]}"
        if sentence not in problems:
            problems.append(sentence)
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more
