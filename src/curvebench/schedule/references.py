"""From what a user writes for a method to its card."""

from __future__ import annotations

from functools import lru_cache

from curvebench import cards
from curvebench.cards import MethodCard


@lru_cache(maxsize=256)
def method_card(reference: str, needs: tuple[str, ...] | None, framework: str | None) -> MethodCard:
    """The card of a method: by name, or built from a third party's card, file, dotted path or entry point.

    A plain name is read here, because resolving anything else may import the framework that it is written for.

    Raises:
        UnknownNameError: no card and no entry point has this name.
        CardError: the reference does not lead to a method.
    """
    if reference in cards.names("methods"):
        return cards.method(reference)
    from curvebench import methods

    card: MethodCard = methods.resolve(reference, needs, framework)
    return card
