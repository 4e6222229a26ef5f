"""Two sides of a comparison: what differs between them, and for every number whether that is more than noise.

Rows of the two sides are matched as closely as they allow and compared inside seed blocks. Three blocks are enough to
look, five to claim a difference: the stronger word is refused to the weaker n. Times never mix machines.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from curvebench import machine
from curvebench.errors import StoreError
from curvebench.report.groups import Group, Row, newest_version, setting_of
from curvebench.report.scoring import costs
from curvebench.report.sides import Side
from curvebench.report.tables import MIB, TIMES, diverged, resolution, spans_decades, why_blank
from curvebench.spec import Status
from curvebench.statistics import Estimate, power
from curvebench.statistics.pairwise import Comparison, compare, holm, improvement
from curvebench.statistics.survival import common_horizon, pseudo_values
from curvebench.store import Record
from curvebench.types import FloatArray

LEVEL = 0.05
TOLD_APART = ("hyperparameters", "cards", "seed_block", "budget")
"""Of a spec: shown one by one, or what pairs are made by."""

Word: TypeAlias = Literal["identical", "differs", "seems to differ", "within noise", "too few to tell"]
Key: TypeAlias = tuple[object, ...]

MATCHES: tuple[tuple[str, Callable[[Record], Key]], ...] = (
    ("task, budget, method, framework and hyperparameters",
     lambda r: (setting_of(r.spec), r.spec.method, r.spec.framework, r.spec.hyperparameters)),
    ("task, budget, method and framework", lambda r: (setting_of(r.spec), r.spec.method, r.spec.framework)),
    ("task, budget and framework", lambda r: (setting_of(r.spec), r.spec.framework)),
    ("task and budget", lambda r: (setting_of(r.spec),)),
    ("task", lambda r: (r.spec.task, r.metric.name)),
)  # fmt: skip
"""What two rows may share, closest first: the first that the sides have in common decides."""

MEASURES: tuple[tuple[str, str], ...] = (
    ("final", "final metric"), ("test", "test metric"), ("step", "steps to target"),
    ("oracle_calls", "oracle calls to target"), ("gradient_equivalents", "gradient-equivalents to target"),
    ("seconds", "seconds to target"), ("step_ms", "ms per step"), ("memory_mib", "peak MiB"),
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One number of two rows.

    Args:
        a: mean of A's values; of log values the geometric mean, of costs with misses the restricted mean.
        comparison: A against B: a difference, or the factor A / B where ``geometric``; None where nothing is compared.
        paired: whether inside shared seed blocks; else Welch's test on all values.
        word: what may be said.
        note: why blank, how many missed, what n would tell.
        better: ``A`` or ``B`` where the word is ``differs`` or ``seems to differ``.
    """

    name: str
    label: str
    a: float | None
    b: float | None
    comparison: Comparison | None
    paired: bool
    word: Word | None
    note: str
    better: str | None = None


@dataclass(frozen=True)
class Match:
    """Two rows of the same task: what differs in how they were made, and in what came out."""

    title: str
    a: Row
    b: Row
    facts: tuple[tuple[str, str, str], ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Contrast:
    """The whole comparison: rows that share ``by``; ``alone`` counts rows that the other side has not."""

    a: Side
    b: Side
    by: str
    matches: tuple[Match, ...]
    alone: tuple[int, int]


def contrast(a: Side, b: Side) -> Contrast:
    """Compare two sides.

    Raises:
        StoreError: they hold the same records, or have no task in common.
    """
    if {r.name for r in a.records} == {r.name for r in b.records}:
        raise StoreError(f"{a.name} and {b.name} are the same {len(a.records)} records")
    for by, key in MATCHES:
        ours, theirs = split(a.records, key), split(b.records, key)
        if shared := [k for k in ours if k in theirs]:
            made = [match(main_row(ours[k]), main_row(theirs[k])) for k in shared]
            made = adjusted(sorted(made, key=lambda m: (m.title, m.a.label, m.a.framework)))
            return Contrast(a, b, by, tuple(made), (len(ours) - len(shared), len(theirs) - len(shared)))
    tasks = [", ".join(sorted({r.spec.task for r in one.records})) for one in (a, b)]
    raise StoreError(f"{a.name} and {b.name} have no task with the same metric in common: {tasks[0]}; {tasks[1]}")


def split(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Records by what they must share."""
    found: defaultdict[Key, list[Record]] = defaultdict(list)
    for record in records:
        found[key(record)].append(record)
    return dict(found)


def main_row(records: Sequence[Record]) -> Row:
    """One row of them: tuned before the card's, then most seed blocks, then the newest; never the best result."""
    cells = split(records, lambda r: (r.spec.method, r.spec.framework, r.spec.hyperparameters, setting_of(r.spec)))

    def weight(members: Sequence[Record]) -> tuple[bool, int, str]:
        return (any(r.spec.source == "tuned" for r in members), len({r.spec.seed_block for r in members}),
                max(r.provenance.started for r in members))  # fmt: skip

    chosen, left_out = newest_version(max(cells.values(), key=weight))
    first = chosen[0]
    return Row(
        first.spec.method, first.title.method, first.spec.framework, first.spec.hyperparameters, chosen, left_out
    )


def match(a: Row, b: Row) -> Match:
    """Compare two rows."""
    group = Group(setting_of(a.records[0].spec), "compare", (a, b))
    blank = why_blank(group)
    made = [d for name, label in MEASURES if (d := difference(group, a, b, name, label, blank)) is not None]
    return Match(group.newest.title.task, a, b, tuple(facts(a.records, b.records)), tuple(made))


def difference(group: Group, a: Row, b: Row, name: str, label: str, blank: str | None) -> Difference | None:
    """One number compared; None where neither row has it."""
    metric = group.newest.metric
    label = {"final": metric.label, "test": f"test {metric.name}"}.get(name, label)
    if blank and name in TIMES:
        return Difference(name, label, None, None, None, False, None, f"not compared: {blank}")
    direction: Literal["min", "max"] = metric.direction if name in ("final", "test") else "min"
    note, geometric = "", name not in ("final", "test")
    if name in ("step", "oracle_calls", "gradient_equivalents", "seconds"):
        x, y, note = crossing(a, b, name)
        geometric = not note
    else:
        x, y = plain_values(a, name), plain_values(b, name)
        if name == "final" and spans_decades(group):
            floor, geometric = resolution(group), True
            x, y = ({k: max(v, floor) for k, v in side.items()} for side in (x, y))
    if name == "final" and (lost := [s for s, row in (("A", a), ("B", b)) if diverged(row)]):
        return Difference(name, label, None, None, None, False, None, f"not compared: {' and '.join(lost)} diverged")
    if not x and not y:
        return None
    geometric = geometric and min([*x.values(), *y.values()]) > 0.0
    return judged(name, label, x, y, direction, geometric, note)


def plain_values(row: Row, name: str) -> dict[int, float]:
    """A number that is not a cost to the target, by seed block."""
    read: dict[str, Callable[[Record], float | None]] = {
        "final": lambda r: r.final.metric,
        "test": lambda r: r.final.test,
        "step_ms": lambda r: None if r.seconds.step is None else scaled(r.seconds.step.median, 1e3),
        "memory_mib": lambda r: scaled(r.memory.peak_bytes, 1.0 / MIB),
    }
    kept = [r for r in row.included if r.status is not Status.DIVERGED or name in ("step_ms", "memory_mib")]
    return {r.spec.seed_block: v for r in kept if (v := read[name](r)) is not None}


def scaled(value: float | None, factor: float) -> float | None:
    """A number in another unit."""
    return None if value is None else value * factor


def crossing(a: Row, b: Row, axis: str) -> tuple[dict[int, float], dict[int, float], str]:
    """Costs to the target by seed block; with misses the pseudo-values of the restricted mean, and a note."""
    cells = [costs(row, axis) if row.records[0].metric.target is not None else {} for row in (a, b)]
    if not any(hit for cell in cells for _, hit in cell.values()):
        return {}, {}, ""
    misses = [sum(not hit for _, hit in cell.values()) for cell in cells]
    if not any(misses):
        x, y = ({block: value for block, (value, _) in cell.items()} for cell in cells)
        return x, y, ""
    arrays = [(np.array([t for t, _ in c.values()]), np.array([h for _, h in c.values()], dtype=bool)) for c in cells]
    horizon = common_horizon([(t[np.isfinite(t)], h[np.isfinite(t)]) for t, h in arrays])
    if horizon is None or horizon <= 0.0:
        return {}, {}, ""
    x, y = (
        dict(zip(cell, map(float, pseudo_values(t, h, horizon)), strict=True)) if cell else {}
        for cell, (t, h) in zip(cells, arrays, strict=True)
    )
    return x, y, f"restricted mean over [0, {horizon:.4g}]: A missed {misses[0]}, B {misses[1]}"


def judged(
    name: str, label: str, x: dict[int, float], y: dict[int, float], direction: Literal["min", "max"],
    geometric: bool, note: str,
) -> Difference:  # fmt: skip
    """Compare the values of two rows, inside seed blocks where they share any; the word is set by :func:`adjusted`."""
    blocks = sorted(set(x) & set(y))
    paired = bool(blocks)
    p, q = ([side[k] for k in blocks] if paired else list(side.values()) for side in (x, y))
    means = [mean(list(side.values()), geometric) for side in (x, y)]
    one, two = np.array(p, dtype=np.float64), np.array(q, dtype=np.float64)
    found = None
    if paired:
        found = compare(one, two, direction, geometric=geometric)
    elif p and q:
        found = welch(one, two, direction, geometric)
    better = None
    if found is not None and found.difference.n:
        gain = math.log(found.difference.mean) if geometric else found.difference.mean
        if gain:
            better = "A" if (gain < 0.0) == (direction == "min") else "B"
    return Difference(name, label, means[0], means[1], found, paired, None, note, better)


def mean(values: Sequence[float], geometric: bool) -> float | None:
    """Arithmetic or geometric; None of nothing."""
    if not values:
        return None
    x = np.asarray(values, dtype=np.float64)
    return float(10.0 ** np.log10(x).mean()) if geometric else float(x.mean())


def welch(x: FloatArray, y: FloatArray, direction: Literal["min", "max"], geometric: bool) -> Comparison:
    """Two rows without a common seed block: Welch's t test; n is that of the smaller row."""
    n = min(x.size, y.size)
    better = improvement(x[:n], y[:n], direction)
    u, v = (np.log10(x), np.log10(y)) if geometric else (x, y)
    gap = float(u.mean() - v.mean())
    low = high = None
    p, spread = 1.0, math.nan
    if n > 1:
        spread = math.sqrt(float(u.var(ddof=1) + v.var(ddof=1)))
        if spread == 0.0:
            low, high, p = gap, gap, 0.0 if gap else 1.0
        else:
            from scipy import stats

            test = stats.ttest_ind(u, v, equal_var=False)
            ends = test.confidence_interval(0.95)
            low, high, p = float(ends.low), float(ends.high), float(test.pvalue)
    if geometric:
        gap, low, high = (None if e is None else 10.0 ** min(max(e, -307.0), 308.0) for e in (gap, low, high))  # type: ignore[assignment]
    return Comparison(Estimate(gap, low, high, n, geometric=geometric), p, better, n, spread)


def adjusted(matches: Sequence[Match]) -> list[Match]:
    """Give every difference its word, with p adjusted over all that are on the page (Holm)."""
    flat = [d for m in matches for d in m.differences if d.comparison is not None and d.comparison.n]
    corrected = dict(zip(map(id, flat), holm([d.comparison.p for d in flat if d.comparison]), strict=True))
    return [replace(m, differences=tuple(worded(d, corrected.get(id(d))) for d in m.differences)) for m in matches]


def worded(found: Difference, p: float | None) -> Difference:
    """What n seeds let one say: nothing below three, a look below five, a claim from five on."""
    c = found.comparison
    if c is None or p is None:
        return found if found.word or found.note else replace(found, note="only one side has it", better=None)
    size = power.word(c.n)
    equal = c.difference.mean == (1.0 if c.difference.geometric else 0.0) and c.spread == 0.0
    hints = [found.note] if found.note else []
    if equal:
        word: Word = "identical"
    elif size == "nothing":
        word = "too few to tell"
        hints.append(f"n = {c.n}; {power.LOOK} to look, {power.CLAIM} to claim a difference")
    elif p >= LEVEL:
        word = "within noise"
        hints += needed(c)
    elif size == "look":
        word = "seems to differ"
        hints.append(f"n = {c.n}: to look; {power.CLAIM} to claim a difference")
    else:
        word = "differs"
    better = found.better if word in ("differs", "seems to differ") else None
    return replace(found, word=word, note="; ".join(hints), better=better)


def needed(c: Comparison) -> Iterator[str]:
    """What these seeds could have seen, and how many would see the difference that there is."""
    if not (math.isfinite(c.spread) and c.spread > 0.0):
        return
    least = power.detectable(c.spread, c.n)
    yield "detectable: " + (
        f"a factor of {10.0 ** min(least, 300.0):.3g}" if c.difference.geometric else f"{least:.3g}"
    )
    gap = abs(math.log10(c.difference.mean)) if c.difference.geometric else abs(c.difference.mean)
    if gap > 0.0:
        n = power.seeds_needed(c.spread, gap)
        yield f"this difference would need n = {n}" if n <= 1000 else "this difference would need n > 1000"


def facts(a: Sequence[Record], b: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """What differs between two rows in how they were made: name, A's, B's."""
    ours, theirs = attributes(a), attributes(b)
    for name in dict.fromkeys([*ours, *theirs]):
        if (one := ours.get(name, "-")) != (two := theirs.get(name, "-")):
            yield name, one, two


def attributes(records: Sequence[Record]) -> dict[str, str]:
    """Everything that a row's records say of how they were made; several values of one thing together."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        spec, made = record.spec.to_json(), record.provenance
        where = f"{made.git.commit[:9]}{'+' * made.git.dirty}" if made.git else "-"
        rows: list[tuple[str, object]] = [
            *((f"spec.{k}", v) for k, v in spec.items() if k not in TOLD_APART),
            *((f"budget.{k}", v) for k, v in dict(spec["budget"]).items()),
            *((f"hyperparameter {k}", v) for k, v in record.spec.hyperparameters),
            *((f"card {k}", v[:12]) for k, v in record.spec.cards),
            ("key.code", record.keys.code[:12]), ("key.machine", record.keys.machine[:12]),
            ("target", record.metric.target), ("git commit", where),
            *((f"version {k}", v) for k, v in made.versions.items()),
            ("machine", machine.describe(made.machine)), ("threads", made.threads),
            ("concurrent runs", made.concurrent),
        ]  # fmt: skip
        for name, value in rows:
            found[name][str(value)] = None
    out = {name: " | ".join(sorted(values)) for name, values in found.items()}
    out["seed blocks"] = ", ".join(str(b) for b in sorted({r.spec.seed_block for r in records}))
    if len(records) == 1:
        out["key.run"] = records[0].keys.run
    out["ended"] = ", ".join(sorted({str(r.status) for r in records}))
    return out
