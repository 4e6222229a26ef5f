"""Every number of every paper card stands, digit for digit, in the section that the card says it was read from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from curvebench import cards

pytestmark = pytest.mark.shared

ORDERED = 0.8
"""Least share of the cells whose row or column stands in the section as one run of numbers, in this order."""


def tables(name: str) -> list[dict[str, Any]]:
    """A card's tables with every number as it is written in the file: ``92.10`` stays ``92.10``."""
    text = cards.path_of("papers", name).read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text, parse_float=str).get("tables", [])
    return found


@cache
def section(file: Path, number: str) -> str:
    """The text below the heading ``number``, up to the next heading of its level or above, thousands without comma."""
    lines = file.read_text(encoding="utf-8").splitlines()
    heading = re.compile(rf"^(#+) {re.escape(number)}[. ]")
    (start,) = [i for i, line in enumerate(lines) if heading.match(line)]
    level = lines[start].partition(" ")[0]
    end = next((i for i in range(start + 1, len(lines)) if re.match(rf"#{{1,{len(level)}}} ", lines[i])), len(lines))
    return "\n".join(lines[start:end])


def printed(table: dict[str, Any], shared: Path) -> str:
    file, _, number = table["read"].rpartition(" ")
    return section(shared / "specs" / f"{file}.md", number)


def digits(value: object) -> str:
    """How a number may be printed: with or without its leading zero, with or without commas between thousands."""
    text = str(value)
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    if text.startswith("0."):
        return re.escape(sign) + "0?" + re.escape(text[1:])
    if re.fullmatch(r"\d{4,}", text):
        return re.escape(sign) + f"(?:{text}|{text[:-3]},{text[-3:]})"
    return re.escape(sign) + re.escape(text)


def alone(pattern: str) -> str:
    """Nothing of the number before or after it."""
    return rf"(?<![\d.]){pattern}(?!\d|\.\d)"


def with_spread(cell: dict[str, Any]) -> str:
    if "spread" not in cell:
        return alone(digits(cell["value"]))
    return rf"{alone(digits(cell['value']))}\s*[±(]\s*{alone(digits(cell['spread']))}"


@pytest.mark.parametrize("name", cards.names("papers"))
def test_every_number_stands_where_it_was_read(name: str, shared: Path) -> None:
    for table in tables(name):
        text = printed(table, shared)
        for cell in table["cells"]:
            if "value" in cell:
                where = f"{name}: {cell['id']} = {cell['value']}: not in {table['read']}"
                assert re.search(with_spread(cell), text), where


@pytest.mark.parametrize("name", [name for name in cards.names("papers") if cards.paper(name).claims])
def test_claims_name_a_section_that_is_there(name: str, shared: Path) -> None:
    for claim in cards.paper(name).claims:
        assert printed({"read": claim.read}, shared)


def runs(table: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The cells of each row, then those of each column."""
    with_value = [cell for cell in table["cells"] if "value" in cell]
    for key in ("row", "column"):
        for _, group in groupby(sorted(with_value, key=lambda cell: str(cell[key])), key=lambda cell: cell[key]):
            yield list(group)


def in_order(cells: list[dict[str, Any]], text: str) -> bool:
    """Whether the numbers follow each other with nothing but separators, spreads and a heading between them."""
    # Between two numbers: spaces, bars, slashes, a spread, the count of GPUs, one mark, and no other number.
    gap = r"[^\d\n]{0,24}?"
    return re.search(gap.join(f"(?:{with_spread(cell)})" + r"(?:\(\d+\)|[*%])?" for cell in cells), text) is not None


def test_rows_and_columns_are_not_mixed_up(shared: Path) -> None:
    total = ordered = 0
    for name in cards.names("papers"):
        for table in tables(name):
            text = printed(table, shared)
            found: set[str] = set()
            for cells in runs(table):
                if len(cells) > 1 and in_order(cells, text):
                    found.update(cell["id"] for cell in cells)
            with_value = [cell for cell in table["cells"] if "value" in cell]
            total += len(with_value)
            ordered += len(found)
    assert total > 900
    assert ordered / total > ORDERED, f"{ordered} of {total}"
