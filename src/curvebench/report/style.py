"""One look for every figure: a method has one colour and one marker everywhere, a framework one kind of line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from curvebench.report.groups import registry_order
from curvebench.store import Record

COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494", "#7a6a00", "#20307a")
"""Seaborn's "colorblind" palette without its pale pink and yellow, which vanish on white, and two dark colours more."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p")
"""As many as are told apart at 5 points; 11 and 10 have no common factor, so 110 methods differ in one or the other."""

LINES: dict[str, Any] = {"torch": "-", "jax": (0, (4.0, 2.0))}

RC: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.5,
    "svg.hashsalt": "curvebench",  # the same records give the same file
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: str


def looks(records: Iterable[Record]) -> dict[str, Look]:
    """Give every method its colour and marker, in registry order, so that all figures of a report agree."""
    order: dict[str, tuple[int, str]] = {}
    for record in records:
        order[record.spec.method] = min(registry_order(record), order.get(record.spec.method, registry_order(record)))
    methods = sorted(order, key=lambda method: order[method])
    return {m: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, m in enumerate(methods)}
