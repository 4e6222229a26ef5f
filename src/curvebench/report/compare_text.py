"""A comparison of two sides as one page: for a terminal, as Markdown, as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curvebench.report.compare import Contrast, Difference, Match
from curvebench.report.groups import Row
from curvebench.report.numbers import plain, text
from curvebench.types import Json

HEADER = ("number", "A", "B", "A / B or A - B", "n", "verdict")


def render(found: Contrast, *, marked: bool = False) -> str:
    """The page, ending with a newline; Markdown where ``marked``."""
    title = f"{found.a.name} (A) against {found.b.name} (B)"
    parts = [f"{'# ' if marked else ''}{title}", head(found)]
    for one in found.matches:
        parts.append(f"{'## ' if marked else ''}{heading(one)}")
        if one.facts:
            parts.append(lines([("differs", "A", "B"), *one.facts], marked))
        else:
            parts.append("Nothing differs in how they were made.")
        parts.append(lines([HEADER, *(line(d) for d in one.differences)], marked))
        parts += [notes(one, marked)] if any(d.note for d in one.differences) else []
    parts.append(reading(found))
    return "\n\n".join(parts) + "\n"


def head(found: Contrast) -> str:
    """What each side is and how rows were matched."""
    said = [f"{side} is a {one.kind}: {len(one.records)} record{'' if len(one.records) == 1 else 's'}."
            for side, one in (("A", found.a), ("B", found.b))]  # fmt: skip
    alone = f" {found.alone[0]} of A and {found.alone[1]} of B have no partner." if any(found.alone) else ""
    return f"{' '.join(said)} Rows are matched by {found.by}.{alone}"


def heading(one: Match) -> str:
    """Task and rows."""
    same = (one.a.label, one.a.framework) == (one.b.label, one.b.framework)
    who = named(one.a) if same else f"{named(one.a)} (A), {named(one.b)} (B)"
    return f"{one.title}: {who}"


def named(row: Row) -> str:
    """``Adam in torch``."""
    return f"{row.label} in {row.framework}"


def line(d: Difference) -> tuple[str, ...]:
    """One number of the page."""
    gap, n = "-", "-"
    if d.comparison is not None and d.comparison.n:
        e = d.comparison.difference
        gap = ("factor " if e.geometric else "") + text(e)
        n = f"{d.comparison.n}{'' if d.paired else ' unpaired'}"
    return d.label, plain(d.a), plain(d.b), gap, n, verdict(d)


def verdict(d: Difference) -> str:
    """The word, with who is better."""
    if d.word is None:
        return "-"
    return f"{d.word}: {d.better} is better" if d.better else d.word


def notes(one: Match, marked: bool) -> str:
    """What is to be read with single numbers."""
    return "\n".join(f"{'- ' if marked else '  '}{d.label}: {d.note}" for d in one.differences if d.note)


def reading(found: Contrast) -> str:
    """How the words came about."""
    tests = sum(d.comparison is not None for m in found.matches for d in m.differences)
    return (
        f"Differences are A - B, factors A / B, inside seed blocks where the rows share any (else Welch), with 95 % "
        f'intervals. "Differs" takes 5 seed blocks and p < 0.05 after Holm\'s correction over the {tests} comparisons '
        "of this page; 3 blocks are enough to look; below that nothing is said."
    )


def lines(grid: Sequence[Sequence[str]], marked: bool) -> str:
    """Aligned columns, in Markdown with bars."""
    cells = [[c.replace("|", "\\|") if marked else c for c in row] for row in grid]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells]
    if not marked:
        return "\n".join("  ".join(row).rstrip() for row in padded)
    first, *rest = ["| " + " | ".join(row) + " |" for row in padded]
    return "\n".join([first, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rest])


def to_json(found: Contrast) -> Json:
    """Everything in plain JSON types, for scripts."""
    return {
        "a": {"name": found.a.name, "kind": found.a.kind, "records": len(found.a.records)},
        "b": {"name": found.b.name, "kind": found.b.kind, "records": len(found.b.records)},
        "matched_by": found.by,
        "without_partner": {"a": found.alone[0], "b": found.alone[1]},
        "matches": [
            {
                "task": one.a.records[0].spec.task,
                "a": {
                    "method": one.a.method,
                    "framework": one.a.framework,
                    "runs": [r.keys.run for r in one.a.records],
                },
                "b": {
                    "method": one.b.method,
                    "framework": one.b.framework,
                    "runs": [r.keys.run for r in one.b.records],
                },
                "differs": [{"what": what, "a": a, "b": b} for what, a, b in one.facts],
                "numbers": [number(d) for d in one.differences],
            }
            for one in found.matches
        ],
    }


def number(d: Difference) -> Json:
    """One comparison."""
    c = d.comparison if d.comparison is not None and d.comparison.n else None
    e = c.difference if c else None
    return {
        "name": d.name,
        "label": d.label,
        "a": d.a,
        "b": d.b,
        "geometric": bool(e and e.geometric),
        "difference": finite(e.mean) if e else None,
        "low": finite(e.low) if e else None,
        "high": finite(e.high) if e else None,
        "p": c.p if c else None,
        "n": c.n if c else 0,
        "paired": d.paired,
        "verdict": d.word,
        "better": d.better if d.word else None,
        "note": d.note,
    }


def finite(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return None if value is None or not math.isfinite(value) else value
