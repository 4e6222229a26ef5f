"""A paper's numbers beside the records: reported, measured with its interval, verdict. A pure function of both.

Nothing is judged by hand: what a cell's ``measure`` names is looked up among the records, seed block by seed block, and
:mod:`curvebench.statistics.verdict` gives the word. docs/papers.md states the rule.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from curvebench.cards import Cell, Claim, Measure, PaperCard, PaperTable
from curvebench.report.groups import EXCLUDED, newest_version, setting_of
from curvebench.report.numbers import text
from curvebench.spec import FRAMEWORKS, Status
from curvebench.statistics import Estimate
from curvebench.statistics.verdict import Verdict, decide, interval90, verdict
from curvebench.store import Record
from curvebench.types import Json

TIMES = ("seconds", "step-seconds")
"""Quantities that say something about a machine: never of a record that another machine made, ratios of one machine."""


@dataclass(frozen=True)
class Sample:
    """What the records of one framework say of a measure.

    Args:
        values: by seed block, in the paper's unit.
        absent: seed blocks that have a record but no such number: diverged, failed, target not met.
        machine: the machine's key by seed block.
        framework: which.
    """

    values: dict[int, float]
    absent: tuple[int, ...]
    machine: dict[int, str]
    framework: str


@dataclass(frozen=True)
class Judged:
    """One cell in one framework, or in none if nothing was measured."""

    cell: Cell
    framework: str | None
    verdict: Verdict
    measured: Estimate | None
    absent: int

    @property
    def reported(self) -> str:
        """The number as reported, with its spread, or the words that stand in its place."""
        if self.cell.value is None:
            return self.cell.text or ""
        spread = "" if self.cell.spread is None else f" ± {self.cell.spread:.10g}"
        return f"{self.cell.value:.10g}{spread}"

    @property
    def seen(self) -> str:
        """The measured mean with its 90 % interval and n; ``-`` if there is none."""
        return seen(self.measured, self.absent)


@dataclass(frozen=True)
class JudgedClaim:
    """One claim in one framework, or by one piece of evidence.

    Args:
        evidence: whose records decided; None: the suite's.
        note: what the evidence says beside its records.
    """

    claim: Claim
    framework: str | None
    verdict: Verdict
    measured: Estimate | None
    absent: int
    evidence: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class PaperReport:
    """A paper with all verdicts."""

    card: PaperCard
    cells: tuple[Judged, ...]
    claims: tuple[JudgedClaim, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How often each word was given, to cells and claims."""
        verdicts = [*(one.verdict for one in self.cells), *(one.verdict for one in self.claims)]
        return dict(Counter(str(found.word) for found in verdicts))

    def of(self, table: PaperTable) -> tuple[Judged, ...]:
        """The judged cells of one table."""
        return tuple(judged for judged in self.cells if judged.cell.table == table.id)


def judge(
    card: PaperCard, records: Iterable[Record], evidence: Mapping[str, Sequence[Record]] | None = None
) -> PaperReport:
    """Give every cell and every claim of a paper its verdict.

    Args:
        card: the paper.
        records: of anything.
        evidence: folder of a claim's evidence -> its records; a folder that is not there is passed over.
    """
    known = list(records)
    cells = {cell.id: cell for cell in card.cells()}
    judged = [one for cell in cells.values() for one in _cell(card, cell, cells, known)]
    claims = [one for claim in card.claims for one in _claim(card, claim, known)]
    for claim in card.claims:
        for given in claim.evidence:
            found = (evidence or {}).get(given.records, ())
            claims += [replace(one, evidence=given.by, note=given.note) for one in _claim(card, claim, list(found))]
    return PaperReport(card, tuple(judged), tuple(claims))


def _cell(card: PaperCard, cell: Cell, cells: dict[str, Cell], records: Sequence[Record]) -> list[Judged]:
    if cell.measure is None:
        return [Judged(cell, None, Verdict("not run", cell.not_run or "needs a measure"), None, 0)]
    made = []
    for framework in FRAMEWORKS:
        sample = sampled(cell.measure, records, framework)
        if not sample.values:
            continue
        measured = list(sample.values.values())
        if cell.value is None:
            found = Verdict("not comparable", f'the paper prints "{cell.text}"', n=len(measured))
        else:
            other = cells[cell.baseline] if cell.baseline else None
            found = verdict(
                cell.value,
                measured,
                spread=cell.spread,
                margin=cell.margin,
                baseline=other.value if other else None,
                differences=_differences(sample, other, records),
                reduced=cell.measure.reduced,
            )
        made.append(Judged(cell, framework, found, estimate(measured), len(sample.absent)))
    if made:
        return made
    absent = sum(len(sampled(cell.measure, records, framework).absent) for framework in FRAMEWORKS)
    return [Judged(cell, None, Verdict("not run", wanting(card, cell.measure, absent)), None, absent)]


def _differences(sample: Sample, other: Cell | None, records: Sequence[Record]) -> list[float]:
    """This cell's numbers minus the baseline's, by shared seed block; times of one machine only."""
    if other is None or other.measure is None:
        return []
    theirs = sampled(other.measure, records, sample.framework)
    timed = other.measure.quantity in TIMES
    shared = [b for b in sample.values if b in theirs.values and (not timed or sample.machine[b] == theirs.machine[b])]
    return [sample.values[b] - theirs.values[b] for b in shared]


def _claim(card: PaperCard, claim: Claim, records: Sequence[Record]) -> list[JudgedClaim]:
    if claim.measure is None:
        return [JudgedClaim(claim, None, Verdict("not run", claim.not_run or "needs a measure"), None, 0)]
    rule, made, absent = claim.decision, [], 0
    for framework in FRAMEWORKS:
        sample = sampled(claim.measure, records, framework)
        values = list(sample.values.values())
        if rule.than is not None:
            other = sampled(replace(claim.measure, method=rule.than, hyperparameters={}), records, framework)
            timed = claim.measure.quantity in TIMES
            shared = [b for b in sample.values if b in other.values]
            shared = [b for b in shared if not timed or sample.machine[b] == other.machine[b]]
            values = [sample.values[b] - other.values[b] for b in shared]
        absent += len(sample.absent)
        if values:
            low, high = bounds(claim)
            found = decide(values, low, high, strict=rule.than is not None, reduced=claim.measure.reduced)
            made.append(JudgedClaim(claim, framework, found, estimate(values), len(sample.absent)))
    if made:
        return made
    return [JudgedClaim(claim, None, Verdict("not run", wanting(card, claim.measure, absent, rule.than)), None, absent)]


def bounds(claim: Claim) -> tuple[float, float]:
    """The interval that a claim's decision allows; for ``less`` and ``greater`` that of the paired difference."""
    rule = claim.decision
    low = {"at-least": rule.bound, "between": rule.low, "greater": 0.0}.get(rule.kind)
    high = {"at-most": rule.bound, "between": rule.high, "less": 0.0}.get(rule.kind)
    return (-math.inf if low is None else low, math.inf if high is None else high)


def sampled(measure: Measure, records: Sequence[Record], framework: str) -> Sample:
    """The numbers of a measure by seed block, of the one setting that counts: see :func:`chosen`."""
    mine = chosen(measure, measure.method, records, framework)
    timed = measure.quantity in TIMES
    values = {b: number(r, measure.quantity) for b, r in mine.items()}
    if measure.relative_to is not None:
        theirs = chosen(replace(measure, hyperparameters={}), measure.relative_to, records, framework)
        for block, value in values.items():
            other = theirs.get(block)
            base = None if other is None else number(other, measure.quantity)
            same = other is not None and (not timed or other.keys.machine == mine[block].keys.machine)
            values[block] = value / base if value is not None and base and same else None
    known = {b: v * measure.factor for b, v in values.items() if v is not None and math.isfinite(v)}
    absent = tuple(b for b in values if b not in known)
    return Sample(known, absent, {b: mine[b].keys.machine for b in known}, framework)


def chosen(measure: Measure, method: str, records: Sequence[Record], framework: str) -> dict[int, Record]:
    """Seed block -> record: one setting of the hyperparameters and the budget, of the newest code and cards.

    Where records of several settings agree with the measure, tuned ones go before the card's, then most seed blocks,
    then the newest: never the best result.
    """
    settings: defaultdict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        spec = record.spec
        given = dict(spec.hyperparameters)
        if (spec.task, spec.method, spec.scale, spec.framework) != (measure.task, method, measure.scale, framework):
            continue
        if all(given.get(name) == value for name, value in measure.hyperparameters.items()):
            settings[(*setting_of(spec), spec.hyperparameters)].append(record)
    if not settings:
        return {}

    def weight(members: Sequence[Record]) -> tuple[bool, int, str]:
        blocks = {r.spec.seed_block for r in members}
        tuned = any(r.spec.source == "tuned" for r in members)
        return (tuned, len(blocks), max(r.provenance.started for r in members))

    newest, _ = newest_version(max(settings.values(), key=weight))
    return {record.spec.seed_block: record for record in newest}


def number(record: Record, quantity: str) -> float | None:
    """What of a record is compared, None where it has no such number: a failed run has none of any kind."""
    if record.status in EXCLUDED or (record.reused and quantity in TIMES):
        return None
    if record.status is Status.DIVERGED and quantity not in ("step-seconds", "peak-bytes"):
        return None
    return _NUMBERS[quantity](record)


def _best(values: Iterable[float | None], direction: str) -> float | None:
    known = [value for value in values if value is not None]
    return (min if direction == "min" else max)(known, default=None)


_NUMBERS: dict[str, Callable[[Record], float | None]] = {
    "final": lambda r: r.final.metric,
    "test": lambda r: r.final.test,
    "best": lambda r: _best(r.curve.metric, r.metric.direction),
    "best-test": lambda r: _best(r.curve.test, r.metric.direction),
    "steps": lambda r: r.crossing.step if r.crossing else None,
    "seconds": lambda r: r.crossing.seconds if r.crossing else None,
    # The mean: a median hides what is done every tenth step.
    "step-seconds": lambda r: (r.seconds.step.mean or r.seconds.step.median) if r.seconds.step else None,
    "peak-bytes": lambda r: r.memory.peak_bytes,
}


def estimate(values: Sequence[float]) -> Estimate:
    """The mean with the 90 % interval that the verdict used."""
    low, high = interval90(values) or (None, None)
    return Estimate(sum(values) / len(values), low, high, len(values))


def seen(measured: Estimate | None, absent: int) -> str:
    """``91.2 ± 0.3 (n = 5, 1 without)``; ``-`` where nothing was measured."""
    if measured is None:
        return "-"
    without = f", {absent} without" if absent else ""
    return f"{text(measured)} (n = {measured.n}{without})"


def wanting(card: PaperCard, measure: Measure, absent: int, than: str | None = None) -> str:
    """What is missing for a verdict, as a clause that begins with ``needs``."""
    others = [name for name in (measure.relative_to, than) if name is not None]
    who = " and ".join([measure.method, *others])
    found = f"; {absent} records have no such number" if absent else ""
    return (
        f"needs records of {who} on {measure.task}, scale {measure.scale}: "
        f"curvebench reproduce {card.name} --run{found}"
    )


def to_json(report: PaperReport) -> Json:
    """Everything in plain JSON types, for scripts."""
    card = report.card
    return {
        "paper": card.name,
        "title": card.title,
        "year": card.year,
        "url": card.url,
        "digest": card.digest,
        "counts": report.counts,
        "cells": [
            {
                "id": j.cell.id,
                "table": j.cell.table,
                "place": j.cell.place,
                "page": j.cell.page,
                "row": j.cell.row,
                "column": j.cell.column,
                "unit": j.cell.unit,
                "source": j.cell.source,
                "by": j.cell.by,
                "reported": j.cell.value if j.cell.value is not None else j.cell.text,
                "spread": j.cell.spread,
                "n_reported": j.cell.n,
                "setup": j.cell.setup,
                "baseline": j.cell.baseline,
                "framework": j.framework,
                **_outcome(j.verdict, j.measured, j.absent),
                "note": j.cell.note,
            }
            for j in report.cells
        ],
        "claims": [
            {
                "id": j.claim.id,
                "statement": j.claim.statement,
                "place": j.claim.place,
                "rule": j.claim.rule,
                "tested_by": j.claim.tested_by,
                "framework": j.framework,
                "evidence": j.evidence,
                **_outcome(j.verdict, j.measured, j.absent),
                "note": j.note,
            }
            for j in report.claims
        ],
    }


def _outcome(found: Verdict, measured: Estimate | None, absent: int) -> Json:
    return {
        "measured": None if measured is None else measured.mean,
        "low": None if measured is None else measured.low,
        "high": None if measured is None else measured.high,
        "n": 0 if measured is None else measured.n,
        "without": absent,
        "margin": found.margin,
        "verdict": str(found.word),
        "why": found.why,
        "needed": found.needed,
    }
