"""Best of k: what tuning with k trials buys each method, out of the pools that ``curvebench tune`` stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curvebench import cards
from curvebench.cards import TaskCard
from curvebench.errors import CurvebenchError, MissingPackageError, StoreError
from curvebench.report.curves import picture
from curvebench.report.numbers import plain
from curvebench.report.style import COLOURS, MARKERS, RC
from curvebench.statistics.pool import BestOf, best_of
from curvebench.store.files import explained, overwrite
from curvebench.store.tuned import check
from curvebench.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAILED = frozenset({"diverged", "crashed", "timeout", "out_of_memory", "unsupported"})


@dataclass(frozen=True)
class Pool:
    """One stored pool: whose it is, and best of k for every k."""

    method: str
    framework: str
    trials: int
    failed: int
    seconds: float
    best: BestOf


@dataclass(frozen=True)
class Tuning:
    """The pools of one task, the best with all trials first."""

    task: TaskCard
    pools: tuple[Pool, ...]
    worst: float
    geometric: bool


def tunings(root: Path) -> list[Tuning]:
    """The pools below ``root``, by task; tasks without a card are passed over.

    Raises:
        StoreError: there are none, or a file there is not a stored pool.
    """
    found: dict[str, list[Json]] = {}
    for path in sorted(root.glob("*/*.json")):
        content = loaded(path)
        found.setdefault(content["task"], []).append(content)
    if not found:
        raise StoreError(f"no tuning pools in {root}: run `curvebench tune quick` first")
    out = []
    for name, contents in found.items():
        try:
            task = cards.task(name)
        except CurvebenchError:
            continue  # a pool may outlive its task
        out.append(tuning(task, contents))
    return out


def loaded(path: Path) -> Json:
    """One stored pool.

    Raises:
        StoreError: the file is something else.
    """
    import json

    try:
        content: Json = json.loads(path.read_bytes())
        check(path, content, path.parent.name, str(dict(content).get("method")))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: not a stored pool: {error}") from error
    return content


def tuning(task: TaskCard, contents: Sequence[Json]) -> Tuning:
    """Best of k of every pool of a task. A failed trial leaves one with the worst end that any pool of the task saw."""
    sign = 1.0 if task.metric.direction == "min" else -1.0
    ends = [values(content) for content in contents]
    known = [v for pool in ends for v in pool if v is not None]
    if not known:
        raise StoreError(f"no trial of any pool on {task.name} ended with a finite {task.metric.name}")
    worst = max(known, key=lambda v: sign * v)
    geometric = task.metric.direction == "min" and task.metric.name == "gap" and min(known) > 0.0
    pools = [
        Pool(
            content["method"],
            content["framework"],
            len(pool),
            sum(v is None for v in pool),
            float(content["cost"]["seconds"]),
            best_of(pool, task.metric.direction, worst, float(content["cost"]["seconds"]), geometric=geometric),
        )
        for content, pool in zip(contents, ends, strict=True)
        if pool
    ]
    pools.sort(key=lambda p: (sign * p.best.expected[-1], p.method, p.framework))
    return Tuning(task, tuple(pools), worst, geometric)


def values(content: Json) -> list[float | None]:
    """The final metric of every trial, None where it failed or ended without one."""
    return [None if run["status"] in FAILED else run["metric"] for run in content["runs"]]


def budgets(most: int) -> list[int]:
    """1, 2, 4, ... and the whole pool."""
    powers = [2**p for p in range(most.bit_length()) if 2**p < most]
    return [*powers, most]


def markdown(found: Tuning) -> str:
    """Expected best of k with its band, cost of k trials, and how many failed."""
    most = max(pool.trials for pool in found.pools)
    shown = budgets(most)
    header = ["method", "pool in", *(f"best of {k}" for k in shown), "failed", "seconds for one", "seconds for all"]
    lines = [header, ["---"] * len(header)]
    for pool in found.pools:
        cells = [cell(pool.best, k) if k <= pool.trials else "" for k in shown]
        cost = [plain(pool.best.seconds[0]), plain(pool.best.seconds[-1])]
        lines.append([pool.method, pool.framework, *cells, f"{pool.failed}/{pool.trials}", *cost])
    mean = ", geometric mean" if found.geometric else ""
    notes = [
        f"Expected best {found.task.metric.label}{mean} of k trials drawn from the stored pool without replacement, "
        "exact; in brackets its 95 % band when the pool is drawn again.",
        f"A trial that diverged, crashed or ran out of time counts as a trial; {plain(found.worst)}, the worst end of "
        "any pool here, is what it leaves one with.",
    ]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([f"### Best of k on {found.task.title}", "", *table, "", *(f"- {note}" for note in notes)]) + "\n"


def cell(best: BestOf, k: int) -> str:
    """``0.95 [0.93, 0.96]``."""
    return f"{plain(best.expected[k - 1])} [{plain(best.low[k - 1])}, {plain(best.high[k - 1])}]"


def figure(found: Tuning) -> Figure:
    """Expected best of k against the seconds that k trials cost, with bands.

    Raises:
        MissingPackageError: matplotlib or seaborn is not installed.
    """
    try:
        import seaborn as sns  # two seconds that only figures need
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(error.name or "seaborn", "report", "drawing best of k") from error
    from matplotlib import rc_context

    with rc_context(), sns.axes_style("whitegrid"), rc_context(RC):
        out = Figure(figsize=(10.5, 3.9), layout="constrained")
        left, right = out.subplots(1, 2, sharey=True)
        for place, pool in enumerate(found.pools):
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            for axes, x in ((left, list(range(1, pool.trials + 1))), (right, pool.best.seconds.tolist())):
                if not all(map(math.isfinite, x)):
                    continue
                axes.fill_between(x, pool.best.low, pool.best.high, color=colour, alpha=0.1, linewidth=0)
                sns.lineplot(
                    x=x, y=pool.best.expected, ax=axes, color=colour, marker=marker, estimator=None, legend=False
                )
        left.set_xlabel("k, trials")
        right.set_xlabel("seconds of tuning, expected")
        right.set_xscale("log")
        if found.geometric:
            left.set_yscale("log")
        better = "lower" if found.task.metric.direction == "min" else "higher"
        left.set_ylabel(f"expected best {found.task.metric.label}  ({better} is better)")
        sns.despine(fig=out)
        names = [p.method if [q.method for q in found.pools].count(p.method) == 1 else f"{p.method} ({p.framework})"
                 for p in found.pools]  # fmt: skip
        out.legend(right.lines or left.lines, names, loc="outside right center", frameon=False)
        out.suptitle(f"Best of k on {found.task.title}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    return out


def build(root: Path, out: Path, formats: Iterable[str] = ("markdown", "png", "svg")) -> list[Path]:
    """Write ``out/tables/best-of-k/<task>.md`` and ``out/figures/best-of-k/<task>.*`` from the pools below ``root``.

    Raises:
        StoreError: there are no pools, or a file cannot be written.
        MissingPackageError: a figure is asked for and matplotlib or seaborn is not installed.
    """
    wanted = list(formats)
    written = []
    for found in tunings(root):
        contents: dict[Path, bytes] = {}
        if "markdown" in wanted:
            contents[out / "tables" / "best-of-k" / f"{found.task.name}.md"] = markdown(found).encode()
        forms = [form for form in wanted if form != "markdown"]
        if forms:
            drawing = figure(found)
            for form in forms:
                contents[out / "figures" / "best-of-k" / f"{found.task.name}.{form}"] = picture(drawing, form)
        for path, content in contents.items():
            with explained(path, "choose another folder with --out DIR"):
                path.parent.mkdir(parents=True, exist_ok=True)
                overwrite(path, content)
            written.append(path)
    return written
