"""What ``report.json`` says, typed: the JSON Schema in docs/schemas/ and the file itself both come from here.

Numbers have 7 significant digits, more than float32 holds; what is not finite is null. Times are seconds, sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field

from curvebench.report.site.paper_model import Paper
from curvebench.store.record import Axes, Final, Memory, Seconds, Work

SCHEMA = 1
"""Changes whenever a key is added, removed or means something else."""

STRICT = ConfigDict(extra="forbid")


class Pair(NamedTuple):
    """Two rows of a table on one axis, compared inside seed blocks; the names of its places are in ``pair_columns``."""

    first: int
    second: int
    n: int
    difference: float | None
    low: float | None
    high: float | None
    p: float
    p_holm: float
    improvement: float | None
    improvement_low: float | None
    improvement_high: float | None
    logrank_p: float | None
    detectable: float | None
    larger: bool


@dataclass(frozen=True)
class Measured:
    """A mean with its 95 % interval."""

    __pydantic_config__ = STRICT

    mean: Annotated[float | None, Field(description="of n values; a lower bound where some were censored")]
    low: Annotated[float | None, Field(description="lower end; null where n is too small")]
    high: Annotated[float | None, Field(description="upper end")]
    n: Annotated[int, Field(description="values, misses included")]
    censored: Annotated[int, Field(description="how many of them are misses")]
    geometric: Annotated[bool, Field(description="mean and interval were computed on the logarithm")]
    text: Annotated[str, Field(description="as tables print it, no finer than the interval")]


@dataclass(frozen=True)
class Column:
    """A column of a task's table."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="key in a row's estimates")]
    heading: Annotated[str, Field(description="what is printed over it")]


@dataclass(frozen=True)
class Row:
    """One method in one framework with one setting of its hyperparameters."""

    __pydantic_config__ = STRICT

    method: Annotated[str, Field(description="name of the method")]
    label: Annotated[str, Field(description="title, with what tells it from its namesakes")]
    family: Annotated[str, Field(description="order of the information it uses")]
    framework: Annotated[str, Field(description="torch or jax")]
    hyperparameters: Annotated[dict[str, Any], Field(description="after defaults")]
    source: Annotated[str, Field(description="where they come from: card, tuned or given")]
    runs: Annotated[int, Field(description="runs of the newest version")]
    n: Annotated[int, Field(description="of them those that enter means")]
    reached: Annotated[int, Field(description="of them those that met the target")]
    left_out: Annotated[int, Field(description="runs of older versions, in no number here")]
    best: Annotated[bool, Field(description="final metric within noise of the best")]
    statuses: Annotated[dict[str, int], Field(description="how many runs ended how")]
    estimates: Annotated[dict[str, Measured | None], Field(description="column id -> estimate; null: nothing to say")]


@dataclass(frozen=True)
class Place:
    """A row's place on one axis."""

    __pydantic_config__ = STRICT

    row: Annotated[int, Field(description="index in the table's rows")]
    rank: Annotated[int, Field(description="by the mean, 1 the best")]
    low: Annotated[int, Field(description="best rank that the interval holds")]
    high: Annotated[int, Field(description="worst rank that it holds")]
    first: Annotated[float, Field(description="probability of the best mean")]
    mean: Annotated[float | None, Field(description="restricted mean cost, or final metric (log10 if geometric)")]


@dataclass(frozen=True)
class RankAxis:
    """The order of a table's rows by one cost or by the final metric."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="final, step, seconds, oracle_calls or gradient_equivalents")]
    label: Annotated[str, Field(description="how tables call it")]
    n: Annotated[int, Field(description="seed blocks that all rows with a value have")]
    horizon: Annotated[float | None, Field(description="of the restricted mean; null for the final metric")]
    geometric: Annotated[bool, Field(description="differences are factors")]
    detectable: Annotated[
        float | None, Field(description="smallest difference (log10 if geometric) found with power 0.8")
    ]
    tau: Annotated[float | None, Field(description="mean Kendall tau between seed blocks")]
    tau_least: Annotated[float | None, Field(description="least of them")]
    tau_pairs: Annotated[int, Field(description="how many there are")]
    places: Annotated[list[Place], Field(description="rows that have one, best first")]
    pairs: Annotated[list[Pair], Field(description="every two rows that have values")]


@dataclass(frozen=True)
class Ranking:
    """The order on one task and how little of it may be said."""

    __pydantic_config__ = STRICT

    title: Annotated[str, Field(description="what it may be called")]
    word: Annotated[str, Field(description="what the seeds allow: nothing, look, claim or rank")]
    seeds: Annotated[int, Field(description="fewest complete seed blocks of an axis")]
    halves: Annotated[float | None, Field(description="Kendall tau between half of the budget and its end")]
    threads: Annotated[list[int], Field(description="numbers of threads among the runs")]
    threads_tau: Annotated[float | None, Field(description="Kendall tau between them")]
    order: Annotated[list[int], Field(description="rows in the order of the printed ranking")]
    notes: Annotated[list[str], Field(description="how to read it, what may be claimed")]
    axes: Annotated[list[RankAxis], Field(description="one order per axis")]


@dataclass(frozen=True)
class Task:
    """One table: a task at one scale, on one device, in one number format, within one budget."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="unique in the report; the stem of the table's files")]
    task: Annotated[str, Field(description="name of the task")]
    title: Annotated[str, Field(description="title of the task")]
    family: Annotated[str, Field(description="family of the task")]
    scale: Annotated[str, Field(description="quick, standard or paper")]
    device: Annotated[str, Field(description="where it ran")]
    dtype: Annotated[str, Field(description="number format")]
    steps: Annotated[int, Field(description="budget in steps")]
    seconds: Annotated[float | None, Field(description="budget in on-clock seconds")]
    gradient_equivalents: Annotated[float | None, Field(description="budget in gradients")]
    schedule: Annotated[str, Field(description="of the learning rate")]
    metric: Annotated[str, Field(description="name of the metric")]
    metric_label: Annotated[str, Field(description="its name on axes")]
    direction: Annotated[str, Field(description="min or max: which way is better")]
    logarithmic: Annotated[bool, Field(description="the metric lives on a logarithmic scale")]
    target: Annotated[float | None, Field(description="value of the metric that ends the race")]
    heading: Annotated[str, Field(description="target and budget in words")]
    blank: Annotated[str | None, Field(description="why times cannot be compared; null if they can")]
    left_out: Annotated[int, Field(description="runs of older versions of the task, in no number here")]
    columns: Annotated[list[Column], Field(description="of the estimates")]
    rows: Annotated[list[Row], Field(description="best final metric first")]
    notes: Annotated[list[str], Field(description="to be read with the table")]
    ranking: Annotated[Ranking | None, Field(description="null where fewer than two rows have values")]


@dataclass(frozen=True)
class Method:
    """A method that has runs."""

    __pydantic_config__ = STRICT

    name: Annotated[str, Field(description="name of the card, or how it was given")]
    title: Annotated[str, Field(description="title")]
    family: Annotated[str, Field(description="order of the information it uses")]
    colour: Annotated[str, Field(description="in every figure")]
    marker: Annotated[str, Field(description="in every figure, in matplotlib's letters")]
    summary: Annotated[str | None, Field(description="one sentence; null without a card")]
    needs: Annotated[list[str], Field(description="the oracle queries it asks")]
    paper: Annotated[str | None, Field(description="where it was published")]
    url: Annotated[str | None, Field(description="where that can be read")]
    papers: Annotated[list[str], Field(description="papers of this report that name it")]


@dataclass(frozen=True)
class Environment:
    """Machine and software that some runs share."""

    __pydantic_config__ = STRICT

    machine: Annotated[dict[str, Any], Field(description="fingerprint")]
    versions: Annotated[dict[str, str], Field(description="of packages")]
    threads: Annotated[int | None, Field(description="CPU threads that runs were pinned to")]
    thread_settings: Annotated[dict[str, Any], Field(description="what framework, BLAS and environment were set to")]
    commit: Annotated[str | None, Field(description="of the checkout")]
    dirty: Annotated[bool | None, Field(description="whether it had changes")]


@dataclass(frozen=True)
class Run:
    """One run, without its curve."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="<run>-<code8>-<machine8>-<attempt>")]
    task: Annotated[str, Field(description="id of the table it belongs to")]
    row: Annotated[int | None, Field(description="row of that table; null: of an older version, or replaced")]
    method: Annotated[str, Field(description="name of the method")]
    label: Annotated[str, Field(description="title of the method")]
    framework: Annotated[str, Field(description="torch or jax")]
    seed: Annotated[int, Field(description="seed block")]
    status: Annotated[str, Field(description="how it ended")]
    reason: Annotated[str, Field(description="why")]
    source: Annotated[str, Field(description="where the hyperparameters come from")]
    hyperparameters: Annotated[dict[str, Any], Field(description="after defaults")]
    draws: Annotated[str, Field(description="native or reference random numbers")]
    cards: Annotated[dict[str, str], Field(description="digests of the cards that define it")]
    code: Annotated[str, Field(description="hash of the code that ran")]
    command: Annotated[str, Field(description="that made it")]
    started: Annotated[str, Field(description="ISO 8601, UTC")]
    environment: Annotated[str, Field(description="key in environments")]
    concurrent: Annotated[int, Field(description="runs that shared the machine")]
    cpu_wall_ratio: Annotated[float | None, Field(description="CPU seconds per wall second")]
    load: Annotated[float | None, Field(description="load average before the start")]
    busy: Annotated[str | None, Field(description="why its times are doubtful")]
    reused: Annotated[bool, Field(description="its curve comes from another machine")]
    notes: Annotated[list[str], Field(description="what the run said of itself")]
    final: Annotated[Final, Field(description="last evaluation")]
    crossing: Annotated[Axes | None, Field(description="where the target was met")]
    consumed: Annotated[Axes, Field(description="what it had used at its end")]
    ledger: Annotated[dict[str, Any], Field(description="queries asked, by kind")]
    seconds: Annotated[Seconds, Field(description="where the time went")]
    memory: Annotated[Memory, Field(description="where the memory went")]
    work: Annotated[Work | None, Field(description="flops and bytes of a step")]


@dataclass(frozen=True)
class Scored:
    """A method's performance profile on one axis."""

    __pydantic_config__ = STRICT

    method: Annotated[str, Field(description="name")]
    label: Annotated[str, Field(description="title")]
    framework: Annotated[str, Field(description="torch or jax")]
    score: Annotated[float, Field(description="area under the censored profile, in [0, 1]")]
    low: Annotated[float, Field(description="lower end of its 95 % interval")]
    high: Annotated[float, Field(description="upper end")]
    rank: Annotated[int, Field(description="by score")]
    rank_low: Annotated[int, Field(description="best rank that the interval holds")]
    rank_high: Annotated[int, Field(description="worst")]
    first: Annotated[float, Field(description="probability of the highest score")]
    plain: Annotated[float, Field(description="AlgoPerf's score of medians")]
    rho: Annotated[list[float], Field(description="share of tasks within a factor tau of the best")]
    rho_low: Annotated[list[float], Field(description="lower end of its band")]
    rho_high: Annotated[list[float], Field(description="upper end")]


@dataclass(frozen=True)
class Profile:
    """Performance profiles over all tasks with a target, by one cost."""

    __pydantic_config__ = STRICT

    axis: Annotated[str, Field(description="what costs are counted in")]
    tasks: Annotated[list[str], Field(description="ids of the tables")]
    seeds: Annotated[int, Field(description="fewest seed blocks of a cell")]
    tau: Annotated[list[float], Field(description="grid of factors")]
    methods: Annotated[list[Scored], Field(description="best score first")]
    notes: Annotated[list[str], Field(description="to be read with it")]


@dataclass(frozen=True)
class Pool:
    """A stored tuning pool."""

    __pydantic_config__ = STRICT

    method: Annotated[str, Field(description="name")]
    framework: Annotated[str, Field(description="in which it was tuned")]
    trials: Annotated[int, Field(description="N")]
    failed: Annotated[int, Field(description="trials that diverged, crashed or ran out of time")]
    expected: Annotated[list[float | None], Field(description="expected best of k trials, k = 1 .. N")]
    low: Annotated[list[float | None], Field(description="lower end of its 95 % band")]
    high: Annotated[list[float | None], Field(description="upper end")]
    seconds: Annotated[list[float | None], Field(description="expected cost of k trials")]


@dataclass(frozen=True)
class Tuning:
    """What tuning with k trials buys each method of a task."""

    __pydantic_config__ = STRICT

    task: Annotated[str, Field(description="name of the task")]
    title: Annotated[str, Field(description="its title")]
    metric_label: Annotated[str, Field(description="what is tuned")]
    direction: Annotated[str, Field(description="min or max")]
    geometric: Annotated[bool, Field(description="means are geometric")]
    worst: Annotated[float, Field(description="what counts where every trial failed")]
    pools: Annotated[list[Pool], Field(description="best with all trials first")]


@dataclass(frozen=True)
class Summary:
    """What was compared, on what machine, how often, and what may be concluded."""

    __pydantic_config__ = STRICT

    lead: Annotated[str, Field(description="one sentence")]
    measured: Annotated[str, Field(description="machine, versions, dates")]
    conclusions: Annotated[list[str], Field(description="what may be said, and what may not")]
    caveats: Annotated[list[str], Field(description="what to keep in mind")]
    runs: Annotated[int, Field(description="runs")]
    statuses: Annotated[dict[str, int], Field(description="how many ended how")]
    verdicts: Annotated[dict[str, int], Field(description="verdicts over all papers")]


@dataclass(frozen=True)
class Report:
    """Everything that the HTML report shows, except raw curves."""

    __pydantic_config__ = STRICT

    schema: Annotated[int, Field(description="number of this schema")]
    curvebench: Annotated[str, Field(description="version that wrote it")]
    study: Annotated[str | None, Field(description="name of the study; null: all records")]
    summary: Annotated[Summary, Field(description="what may be concluded")]
    methods: Annotated[list[Method], Field(description="in registry order")]
    tasks: Annotated[list[Task], Field(description="tables")]
    pair_columns: Annotated[list[str], Field(description="names of the places of a pair")]
    profiles: Annotated[list[Profile], Field(description="over all tasks, one per axis")]
    tuning: Annotated[list[Tuning], Field(description="best of k, one per task with pools")]
    papers: Annotated[list[Paper], Field(description="reported beside measured")]
    environments: Annotated[dict[str, Environment], Field(description="key -> machine and software")]
    runs: Annotated[list[Run], Field(description="every run")]
