"""Write the site: a folder of plain files that opens from disk. Data are scripts, for a page may not fetch files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from curvebench.report.groups import slug
from curvebench.report.site.collect import Collected, collect
from curvebench.report.site.from_records import curve_lines, raw_curve, run_id
from curvebench.report.site.plain import plain, rounded
from curvebench.store import Record
from curvebench.store.files import explained

WEB = Path(__file__).parent / "web"
SKETCHED = 24
"""Points of a curve on a card."""

LISTED = (
    "id", "task", "row", "method", "framework", "seed", "status", "source", "started", "final", "test", "loss",
    "step", "seconds", "oracle_calls", "gradient_equivalents", "bytes", "step_ms", "peak_bytes",
)  # fmt: skip
"""Columns of the list of all runs; the costs are those to the target."""


def build(
    records: Sequence[Record], out: str | os.PathLike[str], tuned: Path, *, study: str | None = None
) -> list[Path]:
    """Write ``index.html``, ``report.json`` and what they need below ``out``; what stood there before is replaced.

    Args:
        records: of any tasks; only these are shown.
        out: the site's folder.
        tuned: where the tuning pools are.
        study: what the records belong to.

    Returns:
        The files, ``index.html`` first.

    Raises:
        StoreError: a file cannot be written.
    """
    return write(collect(records, tuned, study=study), Path(out))


def write(collected: Collected, out: Path) -> list[Path]:
    """Write a report that was made."""
    content = plain(collected.report)
    with explained(out, "choose another folder with --out DIR"):
        for name in ("assets", "data"):
            shutil.rmtree(out / name, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copytree(WEB, out, dirs_exist_ok=True)
        written = sorted(out / p.relative_to(WEB) for p in WEB.rglob("*") if p.is_file())
        written.sort(key=lambda path: path.name != "index.html")
        written.append(out / "report.json")
        written[-1].write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        for name, value in scripts(content, collected):
            path = out / "data" / f"{name}.js"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(script(name, value), encoding="utf-8")
            written.append(path)
    return written


def script(name: str, value: Any) -> str:
    """A script that hands a value to the page. ``<`` cannot end a script element that it is pasted into."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, code in (("<", "\\u003c"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(sign, code)
    return f"curvebench.put({json.dumps(name)},{text});\n"


def scripts(content: Mapping[str, Any], collected: Collected) -> Iterator[tuple[str, Any]]:
    """Name and value of every data script: what the first page needs in one, the rest by page."""
    yield "report", first(content)
    yield "runs", {"columns": LISTED, "rows": [listed(run) for run in content["runs"]]}
    yield "profiles", content["profiles"]
    yield "tuning", content["tuning"]
    sketches: dict[str, Any] = {}
    for task, table in zip(content["tasks"], collected.tables, strict=True):
        lines = rounded(curve_lines(table))
        yield f"tasks/{task['id']}", {"ranking": task["ranking"], "lines": lines}
        sketches[task["id"]] = sketch(lines)
    yield "sketches", sketches
    for paper in content["papers"]:
        yield f"papers/{slug(paper['id'])}", paper
    raw = {run_id(record): record for record in collected.records}
    chunks: dict[str, dict[str, Any]] = {}
    for run in content["runs"]:
        chunks.setdefault(chunk(run), {})[run["id"]] = {**run, "curve": rounded(raw_curve(raw[run["id"]]))}
    for name, members in chunks.items():
        yield f"runs/{name}", members


def first(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the first page and the lists need."""
    heads = ("id", "title", "authors", "year", "venue", "methods", "counts")
    return {
        **{key: content[key] for key in ("schema", "curvebench", "study", "summary", "methods", "pair_columns")},
        "environments": content["environments"],
        "tasks": [{**task, "ranking": task["ranking"] and outline(task["ranking"])} for task in content["tasks"]],
        "papers": [{key: paper[key] for key in heads} for paper in content["papers"]],
    }


def sketch(lines: Mapping[str, Any]) -> dict[str, Any] | None:
    """A task's curves small: the first axis that it has, means alone, a few points each; None without curves."""
    axis = next((a for a in ("seconds", "step") if lines.get(a)), None)
    if axis is None:
        return None

    def few(values: Sequence[float]) -> list[float]:
        kept = {round(k * (len(values) - 1) / (SKETCHED - 1)) for k in range(SKETCHED)} if values else set()
        return [values[k] for k in sorted(kept)]

    drawn = [{"row": line["row"], "x": few(line["x"]), "y": few(line["mean"])} for line in lines[axis]]
    return {"axis": axis, "lines": drawn}


def outline(ranking: Mapping[str, Any]) -> dict[str, Any]:
    """A ranking without its pairs."""
    return {**ranking, "axes": [{k: v for k, v in axis.items() if k != "pairs"} for axis in ranking["axes"]]}


def chunk(run: Mapping[str, Any]) -> str:
    """Name of the script that holds a run's details and curve: those of a row stand together."""
    return f"{run['task']}.{'older' if run['row'] is None else run['row']}"


def listed(run: Mapping[str, Any]) -> list[Any]:
    """A run as one line of the list, in the order of :data:`LISTED`."""
    crossing = run["crossing"] or {}
    step = run["seconds"]["step"]
    moved = run["work"]["step"]["bytes"] if run["work"] else None
    at = crossing.get("step")
    return [
        *(run[key] for key in LISTED[:9]),
        *(run["final"][key] for key in ("metric", "test", "loss")),
        *(crossing.get(axis) for axis in ("step", "seconds", "oracle_calls", "gradient_equivalents")),
        None if at is None or moved is None else rounded(float(at * moved)),
        None if step is None or step["median"] is None else rounded(1e3 * step["median"]),
        run["memory"]["peak_bytes"],
    ]
