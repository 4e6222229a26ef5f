"""Curvature quality as a table, joined with what the same methods needed to reach the target of the same task.

A cell of the table is the median over seed blocks at each checkpoint, ``init / middle / end``. The join is by task,
method and the hyperparameters that make the approximation; where no such run is stored it says so.
"""

from __future__ import annotations

import csv as csvlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from curvebench.errors import MissingPackageError
from curvebench.report.numbers import plain, text
from curvebench.report.style import RC
from curvebench.report.tables import tables
from curvebench.statistics import Estimate
from curvebench.store import Record
from curvebench.store.quality import MEASURES
from curvebench.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("terminal", "markdown", "csv")
NO_RECORD = "no record"
TRUTHS = {"ggn": "the Gauss-Newton matrix", "hessian": "the Hessian"}
SHOWN = {
    "relative_error": "error",
    "trace_ratio": "trace ratio",
    "top_error": "top-10 error",
    "spectrum": "spectrum W1",
    "inverse_error": "inverse-vector error",
    "cosine": "cosine",
    "eff": "eff",
    "scale": "scale*",
}
"""Measures in the printed table; CSV and JSON have all of them."""
HEAD = ("schema", "task", "title", "scale", "d", "n", "seeds", "trained_by", "checkpoints", "provenance")


@dataclass(frozen=True)
class Speed:
    """What a method needed to reach the task's target, over ``n`` runs; None where none could be counted."""

    n: int
    steps: Estimate | None
    seconds: Estimate | None


def speeds(content: Json, records: Iterable[Record]) -> dict[str, Speed | None]:
    """By approximation, the stored runs of its method on this task in torch; None: there is no record."""
    mine = [r for r in records if r.spec.task == content["task"] and r.spec.scale == content["scale"]]
    rows = [row for table in tables(mine) for row in table.rows if row.row.framework == "torch"] if mine else []
    found: dict[str, Speed | None] = {}
    for one in content["approximations"]:
        found[one["name"]] = None
        for row in rows:
            settings = dict(row.row.hyperparameters)
            if row.row.method == one["method"] and all(settings.get(k) == v for k, v in one["options"].items()):
                n = len(row.row.included)
                found[one["name"]] = Speed(n, row.estimates.get("step"), row.estimates.get("seconds"))
                break
    return found


def summary(content: Json, truth: str, damping: float) -> list[Json]:
    """One row per approximation: the medians over seed blocks, ``measure -> [per checkpoint]``, status and reason."""
    rows = []
    for one in content["approximations"]:
        cells = [c for c in content["cells"]
                 if (c["approximation"], c["truth"], c["damping"]) == (one["name"], truth, damping)]  # fmt: skip
        at = [[c for c in cells if c["checkpoint"] == checkpoint] for checkpoint in content["checkpoints"]]
        bad = next((c for c in cells if c["status"] != "measured"), None)
        rows.append({
            **one,
            "status": "measured" if bad is None else bad["status"],
            "reason": "" if bad is None else bad.get("reason", ""),
            **{name: [_median([c.get(name) for c in group]) for group in at] for name in MEASURES},
        })  # fmt: skip
    return rows


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def to_json(content: Json, records: Sequence[Record]) -> Json:
    """The summary for scripts, with the join."""
    joined = speeds(content, records)
    return {
        **{key: content[key] for key in HEAD},
        "tables": [
            {"truth": truth, "damping": damping,
             "rows": [{**row, "to_target": _speed_json(joined[row["name"]])}
                      for row in summary(content, truth, damping)]}
            for truth in TRUTHS for damping in content["dampings"]
        ],
    }  # fmt: skip


def _speed_json(speed: Speed | None) -> Json | None:
    if speed is None:
        return None
    return {"n": speed.n, "steps": _mean(speed.steps), "seconds": _mean(speed.seconds)}


def _mean(estimate: Estimate | None) -> Json | None:
    if estimate is None:
        return None
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "missed": estimate.censored}


def render(content: Json, records: Sequence[Record], form: str, truths: Sequence[str] = tuple(TRUTHS)) -> str:
    """The tables of one task in one of :data:`FORMATS`, ending with a newline.

    Raises:
        ValueError: no such format.
    """
    if form == "csv":
        return csv(content, records)
    if form not in FORMATS:
        raise ValueError(f"format {form!r}: must be one of {', '.join(FORMATS)}")
    joined, marked, parts = speeds(content, records), form == "markdown", []
    for truth in truths:
        for damping in content["dampings"]:
            rows = summary(content, truth, damping)
            head = f"{content['title']}: approximations against {TRUTHS[truth]}"
            about = (
                f"d = {content['d']}, n = {content['n']}, {content['seeds']} seed blocks (median), "
                f"{' / '.join(content['checkpoints'])} of {content['trained_by']}; damping {damping:g} tr(GGN)"
            )
            grid = [_header(), *(_line(row, joined[row["name"]]) for row in rows)]
            parts.append("\n\n".join([f"### {head}" if marked else head, about, _lines(grid, marked)]))
            parts += [f"{'- ' if marked else '  '}{row['title']}: {row['status']}: {row['reason']}"
                      for row in rows if row["status"] != "measured"]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _header() -> list[str]:
    return ["approximation", *SHOWN.values(), "steps to target", "seconds to target"]


def _line(row: Json, speed: Speed | None) -> list[str]:
    cells = [" / ".join(plain(value, 2) for value in row[name]) for name in SHOWN]
    if row["status"] != "measured":
        cells = [row["status"], *[""] * (len(cells) - 1)]
    if row["method"] is None:
        return [row["title"], *cells, "no method", "no method"]
    return [row["title"], *cells, *([NO_RECORD] * 2 if speed is None else [text(speed.steps), text(speed.seconds)])]


def _lines(grid: list[list[str]], marked: bool) -> str:
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in grid]
    if not marked:
        return "\n".join("  ".join(line).rstrip() for line in padded)
    first, *rest = ["| " + " | ".join(line) + " |" for line in padded]
    return "\n".join([first, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rest])


def csv(content: Json, records: Sequence[Record]) -> str:
    """Every cell with all its digits, one line each, and the join."""
    joined = speeds(content, records)
    names = ["task", "approximation", "method", "truth", "damping", "lam", "seed_block", "checkpoint", "step", "loss",
             "status", "reason", *MEASURES, "runs", "steps_to_target", "seconds_to_target", "missed"]  # fmt: skip
    method = {one["name"]: one["method"] for one in content["approximations"]}
    out = io.StringIO()
    writer = csvlib.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for cell in content["cells"]:
        name = cell["approximation"]
        writer.writerow({"task": content["task"], "method": method[name], **cell, **_flat(joined[name])})
    return out.getvalue()


def _flat(speed: Speed | None) -> dict[str, Any]:
    if speed is None:
        return {"runs": 0}
    steps, seconds = speed.steps, speed.seconds
    return {"runs": speed.n, "steps_to_target": steps and steps.mean, "seconds_to_target": seconds and seconds.mean,
            "missed": steps and steps.censored}  # fmt: skip


def heat_map(contents: Sequence[Json], truth: str = "ggn", measure: str = "eff") -> Figure:
    """Approximations by (task, checkpoint): the median of a measure, at each task's first damping.

    Raises:
        MissingPackageError: matplotlib or seaborn is not installed.
        ValueError: nothing to draw, an unknown truth or measure.
    """
    if not contents or truth not in TRUTHS or measure not in MEASURES:
        raise ValueError(f"heat map of {len(contents)} tasks, truth = {truth!r}, measure = {measure!r}")
    try:
        import matplotlib as mpl
        import numpy as np
        import seaborn as sns
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("seaborn", "report", "the heat map") from error
    titles: dict[str, str] = {}
    columns: list[tuple[str, str, Mapping[str, float | None]]] = []
    for content in contents:
        rows = summary(content, truth, content["dampings"][0])
        titles |= {row["name"]: row["title"] for row in rows}
        for place, checkpoint in enumerate(content["checkpoints"]):
            columns.append((content["title"], checkpoint, {row["name"]: row[measure][place] for row in rows}))
    values = np.array([[np.nan if (v := column.get(name)) is None else v for _, _, column in columns]
                       for name in titles])  # fmt: skip
    with mpl.rc_context(RC), sns.axes_style("white"):
        figure = Figure(figsize=(2.4 + 0.5 * len(columns), 1.6 + 0.27 * len(titles)), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor("0.9")
        sns.heatmap(values, ax=axes, annot=True, fmt=".2f", annot_kws={"size": 7}, cmap="viridis", vmin=0, vmax=1,
                    linewidths=0.4, yticklabels=list(titles.values()), xticklabels=[c for _, c, _ in columns],
                    cbar_kws={"label": measure, "shrink": 0.6})  # fmt: skip
        step = len(contents[0]["checkpoints"])
        for place in range(0, len(columns), step):
            axes.text(place + step / 2, -0.25, columns[place][0], ha="center", va="bottom", fontsize=7.5, rotation=12)
            axes.axvline(place, color="white", linewidth=2)
        axes.set_title(f"{measure} against {TRUTHS[truth]}; grey: not offered or no gradient left\n", pad=26)
    return figure
