"""Paper cards: the numbers and the claims of one paper, each with where it stands and where it was read.

A table holds what its cells share; a cell says only what is its own. :meth:`PaperCard.cells` puts both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from curvebench.cards.base import STRICT, Card, Count, Name, RelativePath, Text, Url
from curvebench.spec import Scalar

Source: TypeAlias = Literal["paper", "code", "model-card", "rerun", "third-party"]
"""Who says it. ``rerun``: the authors' code, run by others, where the paper prints no numbers."""

Quantity: TypeAlias = Literal["final", "best", "test", "best-test", "steps", "seconds", "step-seconds", "peak-bytes"]
"""What of a record is compared: the metric at the end or its best, on test data; costs to the target; step; memory."""

Positive: TypeAlias = Annotated[float, Field(gt=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What curvebench measures of a cell, in either framework.

    Args:
        relative_to: another method; the quantity is then the ratio to its, seed block by seed block.
        factor: from curvebench's unit to the paper's: 100 for per cent.
        proxy: why the set-up is not the paper's; another scale than ``paper`` is a proxy anyhow.
    """

    __pydantic_config__ = STRICT

    task: Annotated[Name, Field(description="name of a task card")]
    method: Annotated[Name, Field(description="name of a method card")]
    scale: Annotated[Literal["quick", "standard", "paper"], Field(description="which scale of the task")]
    quantity: Annotated[Quantity, Field(description="what of a record is compared")]
    hyperparameters: Annotated[Mapping[str, Scalar], Field(description="settings that a record must have")] = field(
        default_factory=dict
    )
    relative_to: Annotated[Name | None, Field(description="method whose quantity divides this one's")] = None
    factor: Annotated[Positive, Field(description="from curvebench's unit to the paper's")] = 1.0
    proxy: Annotated[Text | None, Field(description="why the set-up is not the paper's")] = None

    @property
    def reduced(self) -> bool:
        """Whether only a proxy's verdict may be given."""
        return self.scale != "paper" or self.proxy is not None


@dataclass(frozen=True, kw_only=True)
class CellEntry:
    """One cell as its table lists it; what is absent is the table's.

    Args:
        id: unique in the paper.
        row: as the paper heads it.
        column: as the paper heads it.
        value: the number; either it or ``text``.
        text: what stands there instead of a number, such as ``diverge``.
        spread: standard deviation as the paper prints it.
        baseline: id of the cell that this one is to be better or worse than.
    """

    __pydantic_config__ = STRICT

    id: Annotated[Name, Field(description="unique in the paper")]
    row: Annotated[Text, Field(description="the row's heading")]
    column: Annotated[Text, Field(description="the column's heading")]
    value: Annotated[float | None, Field(description="the number as printed")] = None
    text: Annotated[Text | None, Field(description="what stands there instead of a number")] = None
    spread: Annotated[NonNegative | None, Field(description="the spread that the paper prints, a deviation")] = None
    n: Annotated[Count | None, Field(description="runs behind the number; the table's if absent")] = None
    unit: Annotated[Text | None, Field(description="metric and unit; the table's if absent")] = None
    setup: Annotated[Text | None, Field(description="set-up of this cell, besides the table's")] = None
    baseline: Annotated[Name | None, Field(description="id of the cell to compare with")] = None
    margin: Annotated[Positive | None, Field(description="what counts as equal, in the cell's unit")] = None
    margin_reason: Annotated[Text | None, Field(description="why this margin, said before any run")] = None
    measure: Annotated[Measure | None, Field(description="what curvebench measures of it")] = None
    not_run: Annotated[Text | None, Field(description="why it is not measured: 'needs ...'")] = None
    note: Annotated[Text | None, Field(description="what else is to be known")] = None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table, figure or list of numbers of the paper, or of somebody who quotes it.

    Args:
        place: where it stands: ``Table 2``, ``abstract``, ``README``.
        source: who says it; ``by`` names a third party.
        read: the collection and its section that it was read from: ``curvature-methods 2.4``.
        setup: what all cells share.
        margin: of cells that have none.
        not_run: of cells that neither are measured nor say why not.
    """

    __pydantic_config__ = STRICT

    id: Annotated[Name, Field(description="unique in the paper")]
    title: Annotated[Text, Field(description="what the table shows")]
    place: Annotated[Text, Field(description="where it stands: Table 2, abstract, README")]
    page: Annotated[Count | None, Field(description="page, if known")] = None
    source: Annotated[Source, Field(description="who says it")]
    by: Annotated[Text | None, Field(description="the third party's name, or who ran the code")] = None
    read: Annotated[Text, Field(description="where it was read: file and section of the collected numbers")]
    unit: Annotated[Text, Field(description="metric and unit of the cells")]
    direction: Annotated[Literal["min", "max", "none"], Field(description="which way is better")]
    n: Annotated[Count | None, Field(description="runs behind a number, if stated")] = None
    spread_is: Annotated[Text | None, Field(description="what the spread is, if stated")] = None
    setup: Annotated[Text, Field(description="what all cells share")]
    margin: Annotated[Positive | None, Field(description="what counts as equal, for cells without their own")] = None
    margin_reason: Annotated[Text | None, Field(description="why this margin, said before any run")] = None
    not_run: Annotated[Text | None, Field(description="why cells without a measure are not run: 'needs ...'")] = None
    note: Annotated[Text | None, Field(description="what else is to be known")] = None
    cells: Annotated[tuple[CellEntry, ...], Field(min_length=1, description="the numbers")]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A claim's rule as data: ``quantity kind bound``, or ``low <= quantity <= high`` for ``between``.

    Args:
        quantity: in words, with its unit; what ``measure`` or the procedure yields.
        bound: for ``at-most`` and ``at-least``; ``less`` and ``greater`` compare with ``than``.
        than: the method to compare with, for ``less`` and ``greater``.
    """

    __pydantic_config__ = STRICT

    kind: Annotated[
        Literal["at-most", "at-least", "between", "less", "greater"], Field(description="how it is decided")
    ]
    quantity: Annotated[Text, Field(description="what is measured, with its unit")]
    bound: Annotated[float | None, Field(description="for at-most and at-least")] = None
    low: Annotated[float | None, Field(description="for between")] = None
    high: Annotated[float | None, Field(description="for between")] = None
    than: Annotated[Text | None, Field(description="what less and greater compare with")] = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Records of anybody's that speak for or against a claim, with a note; the rule judges them, nobody else.

    Args:
        records: a folder of records, relative to the root of the cards.
    """

    __pydantic_config__ = STRICT

    by: Annotated[Text, Field(description="who made the runs")]
    note: Annotated[Text, Field(description="what they show, in words")]
    records: Annotated[RelativePath, Field(description="folder of the records, relative to the root of the cards")]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the paper, what tests it, and the rule that decides.

    Args:
        statement: in the paper's sense.
        tested_by: the command, study or procedure that measures it.
        rule: in words.
        decision: the same, as data.
        measure: where records decide; without it the procedure's own output does.
    """

    __pydantic_config__ = STRICT

    id: Annotated[Name, Field(description="unique among the paper's claims")]
    statement: Annotated[Text, Field(description="in the paper's sense")]
    place: Annotated[Text, Field(description="where it stands")]
    source: Annotated[Source, Field(description="who says it")] = "paper"
    by: Annotated[Text | None, Field(description="the third party's name")] = None
    read: Annotated[Text, Field(description="where it was read: file and section of the collected numbers")]
    tested_by: Annotated[Text, Field(description="the command, study or procedure that measures it")]
    rule: Annotated[Text, Field(description="the decision rule in words")]
    decision: Annotated[Decision, Field(description="the decision rule as data")]
    measure: Annotated[Measure | None, Field(description="what of the records decides, if they do")] = None
    not_run: Annotated[Text | None, Field(description="why records do not decide it: 'needs ...'")] = None
    evidence: Annotated[tuple[Evidence, ...], Field(description="records that others attached")] = ()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell with all that its table says: what a verdict is given on."""

    id: str
    table: str
    row: str
    column: str
    place: str
    page: int | None
    source: str
    by: str | None
    read: str
    value: float | None
    text: str | None
    spread: float | None
    n: int | None
    unit: str
    direction: str
    setup: str
    baseline: str | None
    margin: float | None
    margin_reason: str | None
    measure: Measure | None
    not_run: str | None
    note: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperCard(Card):
    """A paper's numbers and claims.

    Args:
        title: the paper's.
        not_found: what could not be read, in words: those numbers stay absent.
    """

    KIND: ClassVar[str] = "papers"
    __pydantic_config__ = STRICT

    authors: Annotated[Text | None, Field(description="names, or the first and et al.; absent if not known")] = None
    year: Annotated[int | None, Field(ge=1600, description="of the first version; absent if not known")] = None
    url: Annotated[Url | None, Field(description="where it is; absent if not known")] = None
    venue: Annotated[Text | None, Field(description="where it appeared")] = None
    code: Annotated[Text | None, Field(description="the authors' code and its commit")] = None
    methods: Annotated[tuple[Name, ...], Field(description="method cards that implement it")] = ()
    not_found: Annotated[Text | None, Field(description="what could not be read and stays absent")] = None
    tables: Annotated[tuple[PaperTable, ...], Field(description="the numbers")] = ()
    claims: Annotated[tuple[Claim, ...], Field(description="the statements")] = ()

    def cells(self) -> tuple[Cell, ...]:
        """Every cell with what its table shares, in the tables' order."""
        return tuple(_merged(table, entry) for table in self.tables for entry in table.cells)


def _merged(table: PaperTable, entry: CellEntry) -> Cell:
    own: dict[str, Any] = {f.name: getattr(entry, f.name) for f in fields(entry)}
    own["unit"] = entry.unit or table.unit
    own["n"] = entry.n if entry.n is not None else table.n
    own["setup"] = f"{table.setup}; {entry.setup}" if entry.setup else table.setup
    if entry.margin is None:
        own["margin"], own["margin_reason"] = table.margin, table.margin_reason
    if entry.measure is None and entry.not_run is None:
        own["not_run"] = table.not_run
    notes = [note for note in (table.note, entry.note) if note]
    own["note"] = "; ".join(notes) or None
    shared = {key: getattr(table, key) for key in ("place", "page", "source", "by", "read", "direction")}
    return Cell(table=table.id, **shared, **own)
