"""A card as readable text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curvebench.cards import Card, MethodCard, Search, TaskCard, display
from curvebench.cli.text import cell, columns, outline


def describe(card: Card) -> str:
    """The whole card: a title line, then its content, methods with their hyperparameters as one table."""
    place = f"  ({display(card.path)})" if card.path else ""
    body = _method(card) if isinstance(card, MethodCard) else outline(_without(_content(card), "title"))
    return f"{card.title}{place}\n\n{body}\n\ndigest  {card.digest}"


def _content(card: Card) -> dict[str, Any]:
    content = card.to_json()
    if isinstance(card, TaskCard):  # said for every target, on the card or not
        for scale in content["scales"]:
            content["scales"][scale]["target_source"] = card.target_source(scale)
    return content


def _without(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def _method(card: MethodCard) -> str:
    paper = card.paper
    facts = {
        "name": card.name,
        "summary": card.summary,
        "family": card.family,
        "needs": [str(query) for query in card.needs],
        "twin": "the same algorithm in both frameworks" if card.twin else f"no: {card.twin_reason}",
        "paper": paper and ", ".join(filter(None, (paper.title, paper.authors, cell(paper.year), paper.url))),
    }
    costs = [*((str(query), formula) for query, formula in card.cost.step.items())]
    if card.cost.state is not None:
        costs.append(("state", f"{cell(card.cost.state)} numbers"))
    if card.cost.host:
        costs.append(("host", f"{cell(card.cost.host)} operations"))
    targets = [
        (framework, f"{implementation.target}({cell(implementation.arguments)})")
        for framework, implementation in card.implementation.items()
    ]
    sections = {
        "hyperparameters": _hyperparameters(card),
        "cost of one step (d = number of parameters)": columns(costs, indent="  "),
        "implementation": columns(targets, indent="  "),
    }
    parts = [columns([(key, value) for key, value in facts.items() if value])]
    return "\n\n".join(parts + [f"{title}\n{text}" for title, text in sections.items() if text])


def _hyperparameters(card: MethodCard) -> str:
    rows = [
        (
            name,
            entry.default,
            entry.range or " | ".join(entry.choices or ()),
            _search(card.search.get(name)),
            entry.about,
        )
        for name, entry in card.hyperparameters.items()
    ]
    return columns(rows, ("name", "default", "allowed", "search", "about"), indent="  ") if rows else ""


def _search(search: Search | None) -> str:
    return f"{cell(search.low)} .. {cell(search.high)} {search.scale}" if search else ""
