"""Papers as ``report.json`` has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curvebench import cards
from curvebench.cards import PaperCard
from curvebench.report import papers
from curvebench.report.site import paper_model as model
from curvebench.store import Record, Store
from curvebench.types import Json


def judged(records: Sequence[Record]) -> list[model.Paper]:
    """Every paper's card beside the records, in the order of their names."""
    by_task: dict[str, list[Record]] = {}
    for record in records:
        by_task.setdefault(record.spec.task, []).append(record)
    return [paper(report(cards.paper(name), by_task)) for name in cards.names("papers")]


def report(card: PaperCard, by_task: dict[str, list[Record]]) -> papers.PaperReport:
    """The verdicts of one paper, with the evidence that its claims name; only records of its tasks are looked at."""
    measures = [*(cell.measure for cell in card.cells()), *(claim.measure for claim in card.claims)]
    tasks = dict.fromkeys(measure.task for measure in measures if measure is not None)
    folders = sorted({given.records for claim in card.claims for given in claim.evidence})
    evidence = {folder: Store(Path(cards.root()) / folder).scan()[0] for folder in folders}
    return papers.judge(card, [r for task in tasks for r in by_task.get(task, ())], evidence)


def paper(found: papers.PaperReport) -> model.Paper:
    """One paper with its verdicts."""
    card, content = found.card, papers.to_json(found)
    return model.Paper(
        id=card.name,
        title=card.title,
        authors=card.authors,
        year=card.year,
        venue=card.venue,
        url=card.url,
        code=card.code,
        methods=list(card.methods),
        not_found=card.not_found,
        counts=found.counts,
        tables=[
            model.PaperTable(t.id, t.title, t.place, t.page, t.unit, t.direction, t.n, t.source, t.by, t.setup, t.note)
            for t in card.tables
        ],
        cells=[
            model.PaperCell(
                **{key: line[key] for key in ("id", "table", "row", "column", "unit", "reported", "spread", "note")},
                reported_text=one.reported,
                outcome=outcome(line, one.seen),
            )
            for one, line in zip(found.cells, content["cells"], strict=True)
        ],
        claims=[
            model.PaperClaim(
                **{key: line[key] for key in ("id", "statement", "place", "rule", "tested_by", "evidence", "note")},
                outcome=outcome(line, papers.seen(one.measured, one.absent)),
            )
            for one, line in zip(found.claims, content["claims"], strict=True)
        ],
    )


def outcome(line: Json, text: str) -> model.Verdict:
    """What the records say, with its printed form."""
    names = ("framework", "measured", "low", "high", "n", "without", "margin", "verdict", "why", "needed")
    return model.Verdict(**{key: line[key] for key in names}, text=text)
