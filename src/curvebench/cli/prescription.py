"""The text of ``doctor``: every section, a mark for every finding, and at the end what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from curvebench.cli.text import cell, columns


def render(found: dict[str, Any]) -> str:
    """The findings of :func:`curvebench.cli.diagnosis.examine` as text."""
    engine, machine = found["curvebench"], found["machine"]
    cores = f"{machine['cores']}" + (
        f", this process may use {len(machine['affinity'])}" if machine["affinity"] else ""
    )
    sections = {
        "curvebench": columns(
            [
                ("version", engine["version"]),
                ("package", engine["package"]),
                ("python", f"{engine['python']} ({engine['executable']})"),
                ("git", found["git"]["sentence"]),
            ],
            indent="  ",
        ),
        "packages": _marked(
            (number is not None, [name, number or "missing"]) for name, number in found["packages"].items()
        ),
        "extras": _marked(
            (not extra["missing"], [extra["name"], _missing(extra["missing"])]) for extra in found["extras"]
        ),
        "devices": _marked(
            (not answer["problem"], [framework, answer["problem"] or cell(answer["devices"])])
            for framework, answer in found["devices"].items()
        ),
        "machine": columns(
            [("system", machine["system"]), ("cores", cores), *machine["environment"].items()], indent="  "
        ),
        "cards": _cards(found["cards"]),
        "data": _marked(
            (row["state"] in ("present", "embedded"), [row["name"], row["state"], row["sentence"]])
            for row in found["data"]
        ),
        "records": _marked(
            [(found["records"]["writable"], [found["records"]["folder"], found["records"]["sentence"]])]
        ),
        "what to do": _advice(found),
    }
    return "\n\n".join(f"{click.style(title, bold=True)}\n{text}" for title, text in sections.items() if text)


def _missing(names: Sequence[str]) -> str:
    return "missing: " + ", ".join(names) if names else "complete"


def _marked(rows: Iterable[tuple[bool, Sequence[Any]]]) -> str:
    """Aligned rows, each after a mark that reads without colour too."""
    listed = list(rows)
    lines = columns([row for _, row in listed]).splitlines()
    marks = (click.style("ok", fg="green") if good else click.style("--", fg="yellow") for good, _ in listed)
    return "\n".join(f"  {mark}  {line}" for mark, line in zip(marks, lines, strict=True))


def _cards(found: dict[str, Any]) -> str:
    if found["root"] is None:
        return _marked([(False, [problem]) for problem in found["problems"]])
    counts = ", ".join(f"{count} {kind}" for kind, count in found["counts"].items())
    rows: list[tuple[bool, Sequence[Any]]] = [(True, [f"{found['root']}: {found['origin']}"]), (True, [counts])]
    return _marked(rows + [(False, [problem]) for problem in found["problems"]])


def _advice(found: dict[str, Any]) -> str:
    lines = [f"{extra['install']}  for {', '.join(extra['missing'])}" for extra in found["extras"] if extra["missing"]]
    if not found["extras"]:
        lines.append("curvebench is not installed as a package: pip install -e . in its checkout")
    lines += [
        f"{row['name']}: {row['sentence']}" for row in found["data"] if row["state"] not in ("present", "embedded")
    ]
    lines += [problem for problem in found["cards"]["problems"]]
    if not found["records"]["writable"]:
        lines.append(f"records: {found['records']['sentence']}")
    return "\n".join(f"  {line}" for line in lines) or "  nothing: all is here"
