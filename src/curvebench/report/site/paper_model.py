"""Papers in ``report.json``: what they report, what was measured, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class PaperTable:
    """What the cells of a paper's table share."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="unique in the paper")]
    title: Annotated[str, Field(description="what it shows")]
    place: Annotated[str, Field(description="where it stands")]
    page: Annotated[int | None, Field(description="page, if known")]
    unit: Annotated[str, Field(description="metric and unit")]
    direction: Annotated[str, Field(description="min, max or none: which way is better")]
    n: Annotated[int | None, Field(description="runs behind a number, if stated")]
    source: Annotated[str, Field(description="who says it")]
    by: Annotated[str | None, Field(description="the third party")]
    setup: Annotated[str, Field(description="what all cells share")]
    note: Annotated[str | None, Field(description="what else is to be known")]


@dataclass(frozen=True)
class Verdict:
    """What the records say of a number or a claim, in one framework."""

    __pydantic_config__ = STRICT

    framework: Annotated[str | None, Field(description="in which; null: not measured")]
    measured: Annotated[float | None, Field(description="mean")]
    low: Annotated[float | None, Field(description="lower end of its 90 % interval")]
    high: Annotated[float | None, Field(description="upper end")]
    n: Annotated[int, Field(description="seed blocks")]
    without: Annotated[int, Field(description="seed blocks whose run has no such number")]
    text: Annotated[str, Field(description="as pages print it")]
    margin: Annotated[float | None, Field(description="what counts as equal")]
    verdict: Annotated[str, Field(description="the word")]
    why: Annotated[str | None, Field(description="its reason")]
    needed: Annotated[int | None, Field(description="n that would tell")]


@dataclass(frozen=True)
class PaperCell:
    """One reported number."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="unique in the paper")]
    table: Annotated[str, Field(description="id of its table")]
    row: Annotated[str, Field(description="heading of its row")]
    column: Annotated[str, Field(description="heading of its column")]
    unit: Annotated[str, Field(description="metric and unit")]
    reported: Annotated[float | str | None, Field(description="the number, or the words in its place")]
    spread: Annotated[float | None, Field(description="that the paper prints")]
    reported_text: Annotated[str, Field(description="with its spread, as printed")]
    outcome: Annotated[Verdict, Field(description="what the records say")]
    note: Annotated[str | None, Field(description="what else is to be known")]


@dataclass(frozen=True)
class PaperClaim:
    """One statement."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="unique in the paper")]
    statement: Annotated[str, Field(description="in the paper's sense")]
    place: Annotated[str, Field(description="where it stands")]
    rule: Annotated[str, Field(description="decision rule")]
    tested_by: Annotated[str, Field(description="what measures it")]
    evidence: Annotated[str | None, Field(description="whose records; null: the suite's")]
    outcome: Annotated[Verdict, Field(description="what the records say")]
    note: Annotated[str | None, Field(description="what the evidence says")]


@dataclass(frozen=True)
class Paper:
    """A paper beside the records."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Field(description="name of its card")]
    title: Annotated[str, Field(description="title")]
    authors: Annotated[str | None, Field(description="authors")]
    year: Annotated[int | None, Field(description="of the first version")]
    venue: Annotated[str | None, Field(description="where it appeared")]
    url: Annotated[str | None, Field(description="where it is")]
    code: Annotated[str | None, Field(description="the authors' code")]
    methods: Annotated[list[str], Field(description="method cards that implement it")]
    not_found: Annotated[str | None, Field(description="what could not be read and stays absent")]
    counts: Annotated[dict[str, int], Field(description="verdict -> how often")]
    tables: Annotated[list[PaperTable], Field(description="of the paper")]
    cells: Annotated[list[PaperCell], Field(description="its numbers, once per framework that measured them")]
    claims: Annotated[list[PaperClaim], Field(description="its statements, once per framework or evidence")]
