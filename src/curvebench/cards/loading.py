"""Cards from files and from dicts: read, validate, list every problem."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from curvebench.cards import dataset_card, method_rules, paper_rules, study_card, task_card
from curvebench.cards.base import Card, Problem, show
from curvebench.cards.complaints import complaints
from curvebench.cards.dataset_card import DatasetCard
from curvebench.cards.method_card import MethodCard
from curvebench.cards.paper_card import PaperCard
from curvebench.cards.places import check_kind, display, names, path_of
from curvebench.cards.reading import read
from curvebench.cards.study_card import StudyCard
from curvebench.cards.task_card import TaskCard
from curvebench.errors import CardError

_Card = TypeVar("_Card", bound=Card)
_Rules = Callable[[Mapping[str, Any]], Iterator[Problem]]

CLASSES: dict[str, type[Card]] = {
    "methods": MethodCard,
    "tasks": TaskCard,
    "datasets": DatasetCard,
    "studies": StudyCard,
    "papers": PaperCard,
}
_RULES: dict[str, _Rules] = {
    "methods": method_rules.problems,
    "tasks": task_card.problems,
    "datasets": dataset_card.problems,
    "studies": study_card.problems,
    "papers": paper_rules.problems,
}


@cache
def _adapter(kind: str) -> TypeAdapter[Card]:
    return TypeAdapter(CLASSES[kind])


@cache
def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of card: what a TOML file may hold, without the rules between keys."""
    out = _adapter(kind).json_schema()
    del out["properties"]["path"]  # the file's place is not its content
    return out


def build(kind: str, data: Mapping[str, Any], source: str) -> Card:
    """Validate content that is no file, e.g. of a method given as a dotted path.

    Args:
        kind: one of ``cards.KINDS``.
        data: what a TOML file of this kind would hold.
        source: stands before every problem, where a file's name would.

    Raises:
        CardError: every problem on a line of its own.
        UnknownNameError: no such kind.
    """
    check_kind(kind)
    try:
        text = json.dumps(data)
    except TypeError:
        # of all that TOML knows, JSON lacks dates and times only
        dates = [f"{source}: {key} = {value}: no card holds dates: quote it" for key, value in _dates(data, "")]
        raise CardError("\n".join(dates)) from None
    card, found = None, []
    try:
        # JSON is the validator's strict mode that still takes a table for a dataclass and a list for a tuple
        card = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        found = list(complaints(error.errors(include_url=False), data, schema(kind)))
    said = {_bare(problem) for problem in found}
    found += [problem for problem in _RULES[kind](data) if _bare(problem) not in said]
    if card is None or found:
        raise CardError("\n".join(f"{source}: {key}: {sentence}" for key, sentence in found))
    return card


def _dates(node: object, key: str) -> Iterator[Problem]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _dates(value, f"{key}.{name}" if key else name)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _dates(value, f"{key}[{index}]")
    elif not isinstance(node, str | int | float | None):
        yield key, str(node)


def _bare(problem: Problem) -> str:
    return problem[0].partition(" = ")[0]


def load_file(kind: str, path: str | Path) -> Card:
    """The card in a file, wherever it lies.

    Raises:
        CardError: unreadable, not TOML, or invalid; every problem is a line ``file: key = value: what is allowed``.
        UnknownNameError: no such kind.
    """
    check_kind(kind)
    file = Path(path)
    try:
        stat = file.stat()
    except OSError as error:
        raise CardError(f"{display(file)}: cannot be read: {error.strerror}") from None
    return _load(kind, file, display(file), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _load(kind: str, path: Path, shown: str, mtime: int, size: int) -> Card:
    """Parse; the last two arguments make the cache forget a file that has changed."""
    data = read(path)
    name = data.get("name")
    try:
        card = build(kind, data, shown)
    except CardError as error:
        raise CardError("\n".join([*_misnamed(name, path, shown), str(error)])) from None
    if misnamed := _misnamed(name, path, shown):
        raise CardError("\n".join(misnamed))
    object.__setattr__(card, "path", path)  # frozen for everyone else
    return card


def _misnamed(name: object, path: Path, shown: str) -> list[str]:
    if not isinstance(name, str) or name == path.stem:
        return []
    return [f"{shown}: name = {show(name)}: must equal the file's stem, {path.stem!r}"]


def load(kind: str, name: str) -> Card:
    """The card ``name`` of a kind.

    Raises:
        UnknownNameError: no such kind or card: with the nearest names.
        CardError: the card is invalid.
    """
    return load_file(kind, path_of(kind, name))


def load_all(kind: str) -> list[Card]:
    """All cards of a kind, by name.

    Raises:
        CardError: the problems of all invalid cards.
        UnknownNameError: no such kind.
    """
    loaded, problems = [], []
    for name in names(kind):
        try:
            loaded.append(load(kind, name))
        except CardError as error:
            problems.append(str(error))
    if problems:
        raise CardError("\n".join(problems))
    return loaded


def _one(kind: str, name: str, expected: type[_Card]) -> _Card:
    card = load(kind, name)
    assert isinstance(card, expected)
    return card


def method(name: str) -> MethodCard:
    """The method card ``name``.

    Raises:
        CardError: unknown or invalid.
    """
    return _one("methods", name, MethodCard)


def task(name: str) -> TaskCard:
    """The task card ``name``.

    Raises:
        CardError: unknown or invalid.
    """
    return _one("tasks", name, TaskCard)


def dataset(name: str) -> DatasetCard:
    """The data set card ``name``.

    Raises:
        CardError: unknown or invalid.
    """
    return _one("datasets", name, DatasetCard)


def study(name: str) -> StudyCard:
    """The study card ``name``.

    Raises:
        CardError: unknown or invalid.
    """
    return _one("studies", name, StudyCard)


def paper(name: str) -> PaperCard:
    """The paper card ``name``.

    Raises:
        CardError: unknown or invalid.
    """
    return _one("papers", name, PaperCard)
