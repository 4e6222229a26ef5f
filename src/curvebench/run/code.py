"""The code key: a hash of every source that decides what a run computes, without importing any of it.

Reachable sources are found from ``import`` statements: the run loop, the framework's engine, the task's module and the
method's, and every curvebench module that these import (of other methods none, unless the method itself imports them).
Versions of the framework, NumPy and the library that an adapter wraps come from package metadata.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from pathlib import Path

import curvebench
from curvebench import cards
from curvebench.cards import MethodCard
from curvebench.data import weights
from curvebench.errors import DataError, UnknownNameError
from curvebench.spec import RunSpec, digest

_PACKAGE = Path(curvebench.__file__).parent
_KNOWN = frozenset({"curvebench", "torch", "jax", "jaxlib", "optax", "numpy"})
_LIBRARIES = {"torch": ("torch", "numpy"), "jax": ("jax", "jaxlib", "optax", "numpy")}


def code_key(spec: RunSpec) -> str:
    """64 hex digits: the hash of the sources and versions that decide this run's numbers.

    Raises:
        CardError: the run's task or method has no card and is no dotted path.
    """
    entries, place = _entries(spec)
    return _key(entries, place, spec.framework, _pretrained(cards.task(spec.task).options.get("weights")))


def sources(spec: RunSpec) -> set[Path]:
    """Files of curvebench whose content enters :func:`code_key`.

    Raises:
        CardError: the run's task or method has no card and is no dotted path.
    """
    return {path for name in _reachable(_entries(spec)[0]) if (path := _path(name)) is not None}


def _entries(spec: RunSpec) -> tuple[tuple[str, ...], str]:
    """The modules that a run starts from, and the one that holds the method."""
    place = _target(spec.method, spec.framework).rpartition(":")[0]
    entries = (
        "curvebench.run.execute",
        f"curvebench.run.engine_{spec.framework}",
        cards.task(spec.task).module,
        f"curvebench.methods.adapter_{spec.framework}",
        place,
    )
    return entries, place


def _pretrained(model: object) -> str:
    """What the task's pre-trained weights are; what may not be read says so when the run starts."""
    try:
        return "" if model is None else weights.identity(str(model))
    except DataError:
        return "refused"


def _target(reference: str, framework: str) -> str:
    """Where the method's code is; nothing of it is imported."""
    if ":" in reference:
        return reference
    if reference.endswith(".toml"):
        card = cards.load_file("methods", reference)
    elif reference in cards.names("methods"):
        card = cards.method(reference)
    else:
        registered = {point.name: point.value for point in entry_points(group="curvebench.methods")}
        if reference not in registered:
            raise UnknownNameError("method", reference, [*cards.names("methods"), *registered])
        return registered[reference]
    assert isinstance(card, MethodCard)
    return card.implementation[framework].target  # type: ignore[index]  # a resolved spec names a framework it has


@lru_cache(maxsize=1024)
def _key(entries: tuple[str, ...], place: str, framework: str, pretrained: str) -> str:
    sources = {name: _hash(_path(name)) for name in sorted(_reachable(entries))}
    if not place.startswith("curvebench."):
        sources[place] = _hash(_foreign(place))
    content: dict[str, object] = {"sources": sources, "versions": _versions(place, framework)}
    return digest({**content, "weights": pretrained} if pretrained else content)


def _reachable(entries: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    open_ = [name for name in entries if name.startswith("curvebench.")]
    while open_:
        name = open_.pop()
        path = _path(name)
        if name in found or path is None:
            continue
        found.add(name)
        open_.extend(_imports(name, path))
    return found


@lru_cache(maxsize=512)
def _imports(name: str, path: Path) -> tuple[str, ...]:
    """curvebench modules that a source imports anywhere, packages' ``__init__`` included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    ours = {n for n in names if n.startswith("curvebench.")}
    return tuple(ours | {n.rpartition(".")[0] for n in ours if n.count(".") > 1})


@lru_cache(maxsize=512)
def _path(name: str) -> Path | None:
    stem = _PACKAGE.joinpath(*name.split(".")[1:])
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None


@lru_cache(maxsize=512)
def _hash(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _foreign(place: str) -> Path | None:
    """The file of a third party's method, found as an import would find it but without executing any package."""
    if place.endswith(".py"):
        return Path(place) if Path(place).is_file() else None
    folders: list[str] | None = [os.getcwd(), *sys.path]
    name, found = "", None
    for part in place.split("."):
        name = f"{name}.{part}" if name else part
        found = PathFinder.find_spec(name, folders)
        if found is None:
            return None
        folders = found.submodule_search_locations
    return Path(found.origin) if found is not None and found.origin and Path(found.origin).is_file() else None


def _wrapped(module: str) -> set[str]:
    """Packages that one of our own methods imports, such as the library that it is a thin adapter around."""
    path = _path(module)
    nodes = list(ast.walk(ast.parse(path.read_bytes()))) if path is not None else []
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and node.level == 0]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


@lru_cache(maxsize=64)
def _versions(place: str, framework: str) -> dict[str, str]:
    names = set(_LIBRARIES[framework])
    top = place.split(".")[0]
    wrapped = _wrapped(place) if top == "curvebench" else set() if place.endswith(".py") else {top}
    if wrapped - _KNOWN:
        installed = packages_distributions()
        names.update(*(installed.get(package, ()) for package in wrapped - _KNOWN))
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
