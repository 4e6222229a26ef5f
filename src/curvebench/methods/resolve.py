"""From a reference to a method's card, without a line of curvebench being edited for it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from curvebench import cards
from curvebench.cards import MethodCard
from curvebench.errors import CardError, MissingPackageError, UnknownNameError, did_you_mean
from curvebench.spec import Query

GROUP = "curvebench.methods"
STEP_SIZES = ("lr", "learning_rate")
DEFAULT_STEP_SIZE = 1e-3
EXTRAS = {"pytorch_optimizer": "baselines", "cma": "baselines"}
"""Packages behind cards that a plain installation does not bring, and the extra that does."""


def resolve(reference: str, needs: Sequence[str] | None = None, framework: str | None = None) -> MethodCard:
    """Find the card of a method, or make one from its constructor.

    Args:
        reference: a name in the registry; a path to a card (``.toml``); ``package.module:Class``; ``file.py:Class``;
            or a name that an installed package registers in the entry-point group ``curvebench.methods``.
        needs: the queries that a method without a card asks; default: its ``needs`` attribute, else ``gradient``.
        framework: which framework a method without a card belongs to; default: found out by importing it.

    Raises:
        CardError: the card is bad, the name is unknown, or the dotted path does not import.
    """
    if reference.endswith(".toml"):
        card = cards.load_file("methods", reference)
        assert isinstance(card, MethodCard)
        return card
    if ":" in reference:
        return _from_constructor(reference, reference, needs, framework)
    registered = {point.name: point.value for point in entry_points(group=GROUP)}
    if reference in cards.names("methods"):
        return cards.method(reference)
    if reference in registered:
        return _from_constructor(registered[reference], reference, needs, framework)
    raise UnknownNameError("method", reference, [*cards.names("methods"), *registered])


@lru_cache(maxsize=64)
def load_target(target: str) -> Any:
    """Import ``module:attribute`` or ``file.py:attribute``; the working directory is importable.

    Raises:
        CardError: the module does not import (with the import's own reason) or has no such attribute.
        MissingPackageError: it needs a package that one of curvebench's extras brings.
    """
    place, _, attribute = target.rpartition(":")
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.append(here)  # last, so that no folder in it shadows a package
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except CardError:
        raise
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in EXTRAS:
            raise MissingPackageError(missing, EXTRAS[missing], target) from error
        raise CardError(f"{target}: cannot import {place!r}: {type(error).__name__}: {error}") from error
    except Exception as error:  # an import runs somebody else's code: whatever it raises is the answer
        raise CardError(f"{target}: cannot import {place!r}: {type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_")]
            raise CardError(f"{target}: {place!r} has no attribute {part!r}{did_you_mean(part, public)}")
        found = getattr(found, part)
    return found


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise CardError(f"{path}: no such file")
    name = re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(f"curvebench_user_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _from_constructor(target: str, reference: str, needs: Sequence[str] | None, framework: str | None) -> MethodCard:
    """A card from a constructor's signature: numbers and flags become hyperparameters, the rest stays as it is."""
    constructor = load_target(target)
    framework = framework if framework and needs else _framework(constructor, framework)
    name = target.rpartition(":")[2].rpartition(".")[2]
    parameters = list(inspect.signature(constructor).parameters.values())
    if framework == "torch":
        parameters = parameters[1:]  # the parameters to optimise
    hyperparameters: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        if default is parameter.empty:
            if parameter.name not in STEP_SIZES:
                raise CardError(
                    f"{reference}: the constructor's {parameter.name!r} has no default: write a card for it"
                )
            default = DEFAULT_STEP_SIZE
        if type(default) is int and re.match(r"(<class ')?float\b", str(parameter.annotation)):
            default = float(default)  # torch writes ``momentum: float = 0``
        if isinstance(default, bool | int | float) and re.fullmatch(r"[a-z][a-z0-9_]*", parameter.name):
            entry: dict[str, Any] = {"default": default, "about": f"constructor argument of {name}"}
            if not isinstance(default, bool):
                entry["range"] = "(-inf, inf)"  # the constructor checks its own values
            hyperparameters[parameter.name] = entry
    wanted = list(needs or getattr(constructor, "needs", None) or [Query.GRADIENT.value])
    data = {
        "name": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        "title": name,
        "family": _family(wanted),
        "summary": f"{target}, without a card",
        "needs": [str(need) for need in wanted],
        "hyperparameters": hyperparameters,
        "implementation": {framework: {"target": target, "arguments": {key: f"${key}" for key in hyperparameters}}},
    }
    card = cards.build("methods", data, reference)
    assert isinstance(card, MethodCard)
    return card


def _framework(constructor: Any, given: str | None) -> str:
    """torch for a ``torch.optim.Optimizer`` class; jax for anything else that can be called."""
    if not callable(constructor):
        raise CardError(f"{constructor!r}: neither an optimiser class nor a function that makes a transformation")
    mro = getattr(constructor, "__mro__", ())
    is_torch = any(c.__module__.startswith("torch.optim") for c in mro)
    found = "torch" if is_torch else "jax"
    if given is not None and given != found:
        raise CardError(f"{constructor.__qualname__}: belongs to {found}, not to {given}")
    return found


def _family(needs: Sequence[str]) -> str:
    second = {Query.HVP, Query.GGNVP, Query.LAYER_STATISTICS, Query.PER_SAMPLE_GRADIENT}
    if any(Query(need) in second for need in needs):
        return "second-order"
    return "first-order" if any(Query(need) is not Query.LOSS for need in needs) else "zeroth-order"
