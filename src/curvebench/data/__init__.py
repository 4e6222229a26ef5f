"""Data sets: where they lie, whether they are the official ones, how they get here, and their loaders.

``load("cifar10")`` is the way in for tasks: it finds the files, checks them and reads them.
"""

from __future__ import annotations

import importlib
from typing import Any

from curvebench import cards
from curvebench.data.roots import locate, status, verify

__all__ = ["load", "locate", "status", "verify"]


def load(name: str) -> Any:
    """Read a data set by the loader that its card names; nothing is read before its checksum matched.

    Returns:
        The loader's NamedTuple of arrays, e.g. :class:`curvebench.data.cifar.Cifar`.

    Raises:
        UnknownNameError: no data set has this name.
        DataError: a file is missing, truncated or not the official one.
        MissingPackageError: the data set comes with a package that is not installed.
    """
    card = cards.dataset(name)
    module, _, attribute = card.loader.partition(":")
    return getattr(importlib.import_module(module), attribute)(card=card)
