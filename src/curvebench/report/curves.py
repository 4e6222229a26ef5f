"""Learning curves: per task the metric against seconds and against oracle calls, with a band over seeds.

Seeds are interpolated on a common grid, each inside its own range only; the line is their mean (geometric on a
logarithmic axis) and the band reaches from the lowest to the highest seed: of three seeds a range is what one can see.
Seeds that diverged enter neither; each is a thin line to a cross.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from curvebench.errors import MissingPackageError
from curvebench.report.groups import Group, Row
from curvebench.report.numbers import short
from curvebench.report.style import LINES, RC, Look
from curvebench.report.tables import resolution, spans_decades, why_blank
from curvebench.spec import Status
from curvebench.store import Record
from curvebench.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = 160
"""Points of a line: finer than a panel's pixels need."""

DECADES = 8.0
"""An axis is logarithmic if the ends of the curves on it differ by this factor."""

TARGET: dict[str, Any] = {"color": "0.25", "linestyle": (0, (1.0, 1.5)), "linewidth": 1.2}

LABELS = {
    "seconds": "seconds (on the clock)",
    "oracle_calls": "oracle calls",
    "gradient_equivalents": "gradient-equivalents",
    "step": "optimiser steps",
    "bytes": "bytes moved (counted)",
}

AXES = tuple(LABELS)
"""What a curve can be drawn against."""


Curve: TypeAlias = tuple[FloatArray, FloatArray]
"""Positions and metric of one run, both finite, positions increasing."""


@dataclass(frozen=True)
class Line:
    """A row on one axis: positions ``x`` ``[k]``, mean and range over seeds ``[k]``, and the seeds that diverged."""

    row: Row
    x: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    lost: tuple[Curve, ...]


def figure(group: Group, looks: Mapping[str, Look]) -> Figure | None:
    """Draw one task; None if no run of it has a curve.

    Args:
        group: the records of one table.
        looks: colour and marker by method, from :func:`curvebench.report.style.looks`.

    Raises:
        MissingPackageError: matplotlib or seaborn is not installed.
    """
    try:
        import seaborn as sns  # two seconds that only figures need
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(error.name or "seaborn", "report", "drawing curves") from error
    from matplotlib import rc_context

    first = "step" if why_blank(group) else "seconds"
    floor = resolution(group) if spans_decades(group) else None
    counted = any(record.work is not None for record in group.records)
    axes_shown = (first, "oracle_calls", *(["gradient_equivalents"] if counted else []))
    panels = {axis: list(lines(group.rows, axis, floor)) for axis in axes_shown}
    if not any(panels.values()):
        return None
    with rc_context(), sns.axes_style("whitegrid"), rc_context(RC):
        methods = len({line.row.method for line in panels["oracle_calls"]})
        out = Figure(figsize=(1.5 + 4.5 * len(panels), max(3.9, 1.6 + 0.2 * methods)), layout="constrained")
        places = out.subplots(1, len(panels), sharey=True)
        for axes, (axis, drawn) in zip(places, panels.items(), strict=True):
            panel(axes, drawn, axis, group, looks)
        places[0].set_ylabel(label(group))
        sns.despine(fig=out)
        out.suptitle(group.newest.title.task, x=0.01, ha="left", fontsize=11, fontweight="bold")
        legend(out, group.rows, [line.row for drawn in panels.values() for line in drawn], looks)
    return out


def lines(rows: Sequence[Row], axis: str, floor: float | None) -> Iterable[Line]:
    """One line per row that has a curve on ``axis``; metrics below ``floor`` are lifted to it."""
    for row in rows:
        curves: list[Curve] = []
        lost: list[Curve] = []
        for record in row.included:
            if (found := curve(record, axis, floor)) is not None:
                (lost if record.status is Status.DIVERGED else curves).append(found)
        if curves:
            yield Line(row, *over_seeds(curves, logarithmic=floor is not None), tuple(lost))
        elif lost:
            none = np.zeros(0)
            yield Line(row, none, none, none, none, tuple(lost))


def over_seeds(curves: Sequence[Curve], logarithmic: bool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Common positions ``[k]`` and there the mean, least and greatest metric ``[k]`` of some runs.

    They end where the first seed ends, for the mean of the rest would jump; if that hides more than half of the
    longest curve, where half of the seeds have ended.
    """
    x = grid(min(c[0][0] for c in curves), max(c[0][-1] for c in curves), [c[0] for c in curves])
    values = np.full((len(curves), x.size), np.nan)
    for seed, (own_x, own_y) in enumerate(curves):
        inside = (x >= own_x[0]) & (x <= own_x[-1])
        values[seed, inside] = np.interp(x[inside], own_x, np.log10(own_y) if logarithmic else own_y)
    present = np.isfinite(values).sum(axis=0)
    everyone = present == len(curves)
    wide = everyone.any() and x[everyone].max() >= 0.5 * x.max()
    keep = everyone if wide else 2 * present >= len(curves)
    x, values = x[keep], values[:, keep]
    mean, least, most = np.nanmean(values, axis=0), np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    if logarithmic:
        mean, least, most = 10.0**mean, 10.0**least, 10.0**most
    return x, mean, least, most


def curve(record: Record, axis: str, floor: float | None) -> Curve | None:
    """The curve of one run where it is finite; None if it nowhere is."""
    x = np.array([math.nan if v is None else v for v in positions(record, axis)], dtype=np.float64)
    y = np.array([math.nan if v is None else v for v in record.curve.metric], dtype=np.float64)
    usable = np.isfinite(x) & np.isfinite(y)
    x, y = x[usable], y[usable]
    if x.size == 0:
        return None
    order = np.argsort(x, kind="stable")
    y = y[order] if floor is None else np.maximum(y[order], floor)
    return x[order], y


def positions(record: Record, axis: str) -> Sequence[float | None]:
    """Where the evaluations of a run lie on an axis. Bytes: steps times those of a mean step, None if not counted."""
    if axis == "bytes":
        each = None if record.work is None else record.work.step.bytes
        return [None if each is None else step * each for step in record.curve.step]
    found: Sequence[float | None] = getattr(record.curve, axis)
    return found


def grid(low: float, high: float, positions: Sequence[FloatArray]) -> FloatArray:
    """Common positions in [low, high]: the evaluations themselves if they coincide, else evenly and geometrically."""
    together = np.unique(np.concatenate(positions))
    if together.size <= GRID:
        return together
    even = np.linspace(low, high, GRID // 2)
    least = together[together > 0.0].min(initial=high)
    spread = np.geomspace(least, high, GRID // 2) if 0.0 < least < high else even
    points: FloatArray = np.unique(np.clip(np.concatenate([[low], even, spread]), low, high))
    return points


def panel(axes: Axes, drawn: Sequence[Line], axis: str, group: Group, looks: Mapping[str, Look]) -> None:
    """One panel: lines with markers, bands, the target, and a thin line to a cross for each seed that diverged."""
    import seaborn as sns

    ends = [line.x[-1] for line in drawn if line.x.size and line.x[-1] > 0.0]
    logarithmic = bool(ends) and max(ends) / min(ends) >= DECADES
    for place, line in enumerate(drawn):
        look = looks[line.row.method]
        style = LINES.get(line.row.framework, ":")
        for x, y in line.lost:
            axes.plot(x, y, color=look.colour, linestyle=style, linewidth=0.8, alpha=0.7)
        shown = line.x > 0.0 if logarithmic else np.ones(line.x.size, dtype=bool)
        if not shown.any():
            continue
        x, mean = line.x[shown], line.mean[shown]
        axes.fill_between(x, line.low[shown], line.high[shown], color=look.colour, alpha=0.13, linewidth=0)
        sns.lineplot(
            x=x,
            y=mean,
            ax=axes,
            color=look.colour,
            linestyle=style,
            marker=look.marker,
            markersize=5.5,
            markeredgewidth=0.6,
            markevery=marks(x, logarithmic, place),
            estimator=None,
            legend=False,
            zorder=2.5,
        )
    if logarithmic:
        axes.set_xscale("log")
    scale_metric(axes, drawn, group)
    crosses(axes, drawn, looks)
    value = group.newest.metric.target
    if value is not None and (axes.get_yscale() != "log" or value > 0.0):
        axes.axhline(value, **TARGET, zorder=1.5)
    axes.set_xlabel(LABELS[axis])
    axes.set_ylabel("")
    axes.set_title(f"against {LABELS[axis].split(' (')[0]}", loc="left")


def marks(x: FloatArray, logarithmic: bool, place: int) -> list[int]:
    """About six points of a line, evenly spread as seen, shifted from line to line so that markers do not pile up."""
    seen = np.log10(x) if logarithmic else x
    span = seen[-1] - seen[0]
    if span <= 0.0:
        return [0]
    shift = (place % 5) / 5.0
    wanted = seen[0] + span * (np.arange(6) + shift) / 6.0
    return sorted({int(np.abs(seen - w).argmin()) for w in wanted})


def scale_metric(axes: Axes, drawn: Sequence[Line], group: Group) -> None:
    """A logarithmic axis for a gap and for what spans three decades; limits that a diverging seed cannot stretch."""
    finite = [values for line in drawn for values in (line.low, line.high)]
    values = np.concatenate(finite) if finite else np.zeros(0)
    if values.size == 0:
        values = np.concatenate([y[:1] for line in drawn for _, y in line.lost] or [np.ones(1)])
    goal = group.newest.metric.target
    spread = np.append(values, values if goal is None else goal)
    low, high = float(spread.min()), float(spread.max())
    if low > 0.0 and (spans_decades(group) or high / low >= 1e3):
        axes.set_yscale("log")
        room = max(high / low, 10.0) ** 0.05
        axes.set_ylim(low / room, high * room)
    else:
        room = 0.05 * (high - low or 1.0)
        axes.set_ylim(low - room, high + room)


def crosses(axes: Axes, drawn: Sequence[Line], looks: Mapping[str, Look]) -> None:
    """Mark where seeds diverged, at the edge of the panel if they left it."""
    bottom, top = axes.get_ylim()
    for line in drawn:
        for x, y in line.lost:
            height = min(max(float(y[-1]), bottom), top)
            axes.plot(
                [x[-1]],
                [height],
                marker="x",
                color=looks[line.row.method].colour,
                markersize=7,
                markeredgewidth=2.0,
                zorder=4,
                clip_on=False,
            )


def label(group: Group) -> str:
    """The metric, with an arrow that says which way is better."""
    metric = group.newest.metric
    return f"{metric.label}  ({'lower' if metric.direction == 'min' else 'higher'} is better)"


def legend(out: Figure, rows: Sequence[Row], drawn: Sequence[Row], looks: Mapping[str, Look]) -> None:
    """Right of the panels: methods by colour and marker, frameworks by line, and what band and cross mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[tuple[Line2D | Patch, str]] = []
    names: dict[str, list[str]] = {}
    for row in drawn:
        names.setdefault(row.method, [])
        if row.label not in names[row.method]:
            names[row.method].append(row.label)
    for method, titles in names.items():
        look = looks[method]
        sample = Line2D([], [], color=look.colour, marker=look.marker, markersize=5.5, markeredgecolor="white")
        text = titles[0] if len(titles) == 1 else f"{titles[0].split(' (')[0]} ({len(titles)} settings)"
        entries.append((sample, text))
    entries.append((Patch(alpha=0.0), ""))
    frameworks = sorted({row.framework for row in drawn}, reverse=True)
    for framework in frameworks:
        entries.append((Line2D([], [], color="0.3", linestyle=LINES.get(framework, ":")), framework))
    if (value := rows[0].records[0].metric.target) is not None:
        entries.append((Line2D([], [], **TARGET), f"target {short(value)}"))
    if any(len(row.included) > 1 for row in drawn):
        entries.append((Patch(facecolor="0.3", alpha=0.2), "range over seeds"))
    if any(r.status is Status.DIVERGED for row in rows for r in row.records):
        cross = Line2D([], [], color="0.3", marker="x", linestyle="none", markersize=7, markeredgewidth=2.0)
        entries.append((cross, "seed diverged"))
    handles, texts = zip(*entries, strict=True)
    out.legend(handles, texts, loc="outside right center", frameon=False, handlelength=2.6)


def picture(drawing: Figure, form: str) -> bytes:
    """The file content of a figure as ``png``, ``svg`` or ``pdf``, without dates: the same records, the same bytes."""
    from matplotlib import rc_context

    nameless = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "ModDate": None}}
    out = io.BytesIO()
    with rc_context(RC):
        drawing.savefig(out, format=form, metadata=nameless[form])
    return out.getvalue()
