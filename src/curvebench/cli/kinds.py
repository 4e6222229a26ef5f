"""The arguments KIND and NAME of several verbs, with their shell completion."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from curvebench.cards import KINDS, names
from curvebench.errors import CurvebenchError, UnknownNameError

SINGULARS = {"method": "methods", "task": "tasks", "dataset": "datasets", "study": "studies", "paper": "papers"}


def read_kind(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The kind in the plural; the singular, as in ``show method adam``, will do.

    Raises:
        UnknownNameError: with the nearest kinds.
    """
    plural = SINGULARS.get(value, value)
    if plural not in KINDS and not ctx.resilient_parsing:
        raise UnknownNameError("kind", value, KINDS)
    return plural


def complete_kind(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The kinds that begin so."""
    return [CompletionItem(kind) for kind in KINDS if kind.startswith(incomplete)]


def complete_name(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of cards of the kind that stands before it."""
    try:
        known = names(ctx.params["kind"])
    except (CurvebenchError, KeyError):
        return []  # a completion never fails loudly
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]
