"""Which runs a paper's measures ask for, and its report from the records that are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from curvebench import cards
from curvebench.cards import Measure, PaperCard
from curvebench.errors import CurvebenchError
from curvebench.report.papers import PaperReport, judge
from curvebench.schedule.plan import specify, stored_tuned
from curvebench.spec import RunSpec, Scalar
from curvebench.store import Record, Store


def measures(card: PaperCard) -> Iterator[tuple[Measure, str]]:
    """Every measure of cells and claims with the method to run: its own, then those that it is compared with."""
    for cell in card.cells():
        if cell.measure is not None:
            yield from _with_others(cell.measure, None)
    for claim in card.claims:
        if claim.measure is not None:
            yield from _with_others(claim.measure, claim.decision.than)


def _with_others(measure: Measure, than: str | None) -> Iterator[tuple[Measure, str]]:
    for method in (measure.method, measure.relative_to, than):
        if method is not None:
            yield measure, method


def runs(card: PaperCard, framework: str = "torch", seeds: int = 5, device: str = "cpu") -> list[RunSpec]:
    """The runs that a paper's measures ask for, seed block by seed block, each once.

    A method has the hyperparameters that its measure names, on top of tuned ones where a pool is stored, on top of its
    card's. Methods that ``framework`` does not implement are left out.

    Raises:
        CurvebenchError: fewer than one seed, or a card that does not hold.
    """
    if seeds < 1:
        raise CurvebenchError(f"--seeds {seeds}: must be at least 1")
    found: dict[str, RunSpec] = {}
    for block in range(seeds):
        for measure, name in measures(card):
            method, task = cards.method(name), cards.task(measure.task)
            if framework not in method.frameworks:
                continue
            scale = task.at(measure.scale)
            tuned = stored_tuned(method, task.name, framework)
            own = measure.hyperparameters if name == measure.method else {}
            given: dict[str, Scalar] = {**(tuned or {}), **own}
            spec = specify(
                task, name, method, framework, measure.scale, scale.budget, given,
                "tuned" if tuned else "card", device, block,
            )  # fmt: skip
            found[spec.id] = spec
    return list(found.values())


def gather(folders: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The records of several folders, each run once, and what could not be read."""
    found: dict[str, Record] = {}
    problems: list[str] = []
    for folder in folders:
        records, wrong = Store(folder).scan()
        found.update({record.name: record for record in records})
        problems += [str(problem) for problem in wrong]
    return list(found.values()), problems


def reproduce(card: PaperCard, records: Sequence[Record]) -> PaperReport:
    """The paper's report; the evidence of its claims is read from the folders that the card names."""
    folders = {given.records for claim in card.claims for given in claim.evidence}
    evidence = {folder: gather([cards.root() / folder])[0] for folder in sorted(folders)}
    return judge(card, records, evidence)
