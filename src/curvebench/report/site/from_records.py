"""Runs, environments and methods as ``report.json`` has them, and the curves that only the HTML has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields

from curvebench import cards
from curvebench.errors import CurvebenchError
from curvebench.report.curves import AXES, lines
from curvebench.report.groups import registry_order, setting_of
from curvebench.report.site.model import Environment, Method, Run
from curvebench.report.style import Look
from curvebench.report.tables import TaskTable, resolution, spans_decades, why_blank
from curvebench.store import Record
from curvebench.types import FloatArray, Json


def runs(records: Sequence[Record], made: Sequence[TaskTable]) -> tuple[list[Run], dict[str, Environment]]:
    """Every run, in the order of the tables, and the environments that they name."""
    stems = {table.group.setting: table.group.stem for table in made}
    rows = {id(r): k for table in made for k, one in enumerate(table.rows) for r in one.row.records}
    environments: dict[str, Environment] = {}
    found = []
    for record in records:
        key, environment = environment_of(record)
        environments[key] = environment
        found.append(run(record, stems[setting_of(record.spec)], rows.get(id(record)), key))
    found.sort(key=lambda r: (r.task, r.row is None, r.row or 0, r.seed, r.started, r.id))
    return found, dict(sorted(environments.items()))


def run(record: Record, stem: str, row: int | None, environment: str) -> Run:
    """One run of the table ``stem``."""
    spec, made = record.spec, record.provenance
    return Run(
        id=run_id(record),
        task=stem,
        row=row,
        method=spec.method,
        label=record.title.method,
        framework=spec.framework,
        seed=spec.seed_block,
        status=str(record.status),
        reason=record.reason,
        source=spec.source,
        hyperparameters=dict(spec.hyperparameters),
        draws=spec.draws,
        cards=dict(spec.cards),
        code=record.keys.code,
        command=made.command,
        started=made.started,
        environment=environment,
        concurrent=made.concurrent,
        cpu_wall_ratio=made.cpu_wall_ratio,
        load=made.load,
        busy=made.busy,
        reused=record.reused,
        notes=list(made.notes),
        final=record.final,
        crossing=record.crossing,
        consumed=record.consumed,
        ledger=dict(record.ledger),
        seconds=record.seconds,
        memory=record.memory,
        work=record.work,
    )


def run_id(record: Record) -> str:
    """What a permalink calls a run: its file's name without ending."""
    return record.name.removesuffix(".json")


def environment_of(record: Record) -> tuple[str, Environment]:
    """Machine and software of a run, with a name made of their content."""
    made = record.provenance
    environment = Environment(
        made.machine,
        made.versions,
        made.threads,
        made.thread_settings,
        made.git.commit if made.git else None,
        made.git.dirty if made.git else None,
    )
    content = json.dumps([record.keys.machine, asdict(environment)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:8], environment


def methods(records: Iterable[Record], looks: Mapping[str, Look], papers: Mapping[str, Sequence[str]]) -> list[Method]:
    """Every method that has runs, in registry order; ``papers`` are the reports that name it."""
    newest: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: r.provenance.started):
        newest[record.spec.method] = record
    return [
        method(record, looks[record.spec.method], papers.get(record.spec.method, ()))
        for record in sorted(newest.values(), key=registry_order)
    ]


def method(record: Record, look: Look, papers: Sequence[str]) -> Method:
    """A method, with what its card says where it has one."""
    name = record.spec.method
    summary = paper = url = None
    try:
        card = cards.method(name)
    except CurvebenchError:
        card = None  # a third party's, or one that is gone
    if card is not None:
        summary = card.summary
        if card.paper is not None:
            parts = (card.paper.authors, card.paper.title, str(card.paper.year or ""))
            paper, url = ", ".join(filter(None, parts)), card.paper.url
    return Method(
        name,
        record.title.method,
        record.title.method_family,
        look.colour,
        look.marker,
        summary,
        list(record.spec.needs),
        paper,
        url,
        list(papers),
    )


def curve_lines(table: TaskTable) -> Json:
    """Axis -> per row the mean over seeds with their range, on common positions, and the seeds that diverged."""
    group = table.group
    floor = resolution(group) if spans_decades(group) else None
    place = {id(one.row): k for k, one in enumerate(table.rows)}
    out: Json = {}
    for axis in AXES:
        if axis == "seconds" and why_blank(group):
            continue
        drawn = [
            {
                "row": place[id(line.row)],
                "x": digits(line.x),
                "mean": digits(line.mean),
                "low": digits(line.low),
                "high": digits(line.high),
                "lost": [[digits(x), digits(y)] for x, y in line.lost],
            }
            for line in lines([one.row for one in table.rows], axis, floor)
        ]
        if drawn:
            out[axis] = drawn
    return out


def digits(values: FloatArray) -> list[float]:
    """Four significant digits: a pixel has three."""
    return [float(f"{v:.4g}") for v in values.tolist()]


def raw_curve(record: Record) -> Json:
    """The evaluations of one run with every number, bytes moved among them where the step's were counted."""
    out: Json = {f.name: list(getattr(record.curve, f.name)) for f in fields(record.curve)}
    if record.work is not None:
        out["bytes"] = [step * record.work.step.bytes for step in record.curve.step]
    return out
