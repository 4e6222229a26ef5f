"""The larger dose of a night, part after part, and what became worse since the night before.

``python -m curvebench.procedures.nightly`` in a checkout (``make nightly``). Every night is a JSON file of its own in
``results/nightly/``, so that histories of branches merge without conflict; ``summary.md`` there says in a minute what
became slower (``curvebench regress`` against the last night's commit), fatter and less accurate (asv's figures of both
nights), and which claims changed their verdict. A part that fails is reported and the rest goes on; the exit code is 1
if something became worse, a part that did not fail the night before among it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path("results") / "nightly"
FATTER, LESS_ACCURATE = 1.1, 2.0
"""Ratios to the night before above which bytes and errors are reported: allocators round, float32 errors wander."""
ROUNDING = 1e-6
"""An error below this is rounding of float32, however it changed."""
GOOD = ("reproduced", "consistent (proxy)")
TAIL = 400


class Part(NamedTuple):
    """A part of the night: a command in the checkout, and whether its standard output is JSON that is kept."""

    name: str
    command: tuple[str, ...]
    keep: bool = False


class Change(NamedTuple):
    """What differs from the night before."""

    kind: str
    what: str
    before: str
    now: str
    worse: bool


Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def parts(commit: str, last: str | None) -> list[Part]:
    """The parts of a night at ``commit``; the regression check needs the commit of the last one."""
    python, curvebench = sys.executable, str(Path(sys.executable).with_name("curvebench"))
    asv = (python, "-m", "asv", "run", "--python=same", "--set-commit-hash", commit)
    check = (
        [
            Part(
                "regressions",
                (curvebench, "regress", last, "--kernel", "kernels", "--seconds", "20", "--json"),
                keep=True,
            )
        ]
        if last and last != commit
        else []
    )
    return [
        Part("study", (curvebench, "bench", "nightly")),
        Part("machine", (python, "-m", "asv", "machine", "--yes")),
        Part("kernels", asv),
        *check,
        Part("nightly tests", (python, "-m", "pytest", "-q", "-m", "nightly", "tests")),
        Part("docs", (python, "-m", "pytest", "-q", "tests/docs")),
        Part("claims", (curvebench, "reproduce", "--json"), keep=True),
        Part("report", (curvebench, "report")),
    ]


def night(todo: Sequence[Part], run: Run) -> dict[str, Any]:
    """Run the parts, whatever becomes of each: ``{"parts": [...], name: kept output}``."""
    found: dict[str, Any] = {"parts": []}
    for part in todo:
        began = time.monotonic()
        try:
            done = run(part.command)
            code, tail = done.returncode, (done.stderr or done.stdout)[-TAIL:]
            if part.keep and done.stdout.strip():  # a command that refused has said why on its standard error
                found[part.name] = json.loads(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            code, tail = -1, f"{type(error).__name__}: {error}"
        found["parts"].append({"name": part.name, "code": code, "seconds": time.monotonic() - began, "tail": tail})
    return found


def verdicts(papers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """``paper/cell -> verdict`` of what ``curvebench reproduce --json`` prints."""
    return {f"{paper['paper']}/{cell['id']}": cell["verdict"] for paper in papers for cell in paper["cells"]}


def figures(stored: Mapping[str, Any]) -> dict[str, float]:
    """``benchmark(params) -> value`` of one file of asv's results; what was not measured is left out."""
    column = {name: i for i, name in enumerate(stored["result_columns"])}
    found: dict[str, float] = {}
    for name, row in stored["results"].items():
        values = row[column["result"]] if isinstance(row, list) else None
        params = row[column["params"]] if isinstance(row, list) and len(row) > column["params"] else []
        for case, value in zip(product(*params), values or [], strict=False):
            if isinstance(value, (int, float)) and value == value:
                found[f"{name}({', '.join(case)})" if case else name] = float(value)
    return found


def changes(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[Change]:
    """What differs between two nights, the worse first; of the first night only what its own check found."""
    found = [
        Change("slower", o["benchmark"], "", str(o["verdict"]) + (f": {o['sentence']}" if o.get("sentence") else ""),
               o["verdict"] in {"slower", "failed"})
        for o in now.get("regressions", [])
        if o["verdict"] in {"slower", "faster", "failed"}
    ]  # fmt: skip
    old = (before or {}).get("figures", {})
    for name, value in now.get("figures", {}).items():
        if not (previous := old.get(name)):
            continue
        method = name.rpartition(".")[2]
        if method.startswith(("peakmem_", "track_state_bytes")) and value > FATTER * previous:
            found.append(Change("fatter", name, f"{previous:.4g}", f"{value:.4g}", worse=True))
        if method.startswith("track_error") and value > max(LESS_ACCURATE * previous, ROUNDING):
            found.append(Change("less accurate", name, f"{previous:.3g}", f"{value:.3g}", worse=True))
    ended = {part["name"]: part["code"] for part in (before or {}).get("parts", [])}
    for part in now.get("parts", []):
        if part["code"] and not ended.get(part["name"]) and part["name"] not in now:  # else its own rows say it
            found.append(Change("part", part["name"], "done", f"ended with {part['code']}", worse=True))
    told = (before or {}).get("verdicts", {})
    for name, verdict in now.get("verdicts", {}).items():
        if name in told and told[name] != verdict:
            found.append(Change("claim", name, told[name], verdict, worse=told[name] in GOOD and verdict not in GOOD))
    return sorted(found, key=lambda change: not change.worse)


def summary(now: Mapping[str, Any], before: Mapping[str, Any] | None, seen: Sequence[Change]) -> str:
    """The night in Markdown, for a reader with a minute."""
    worse, against = sum(change.worse for change in seen), before["commit"][:10] if before else "no earlier night"
    head = f"{worse} became worse" if worse else "nothing became worse"
    lines = [f"# Night of {now['date']}: {head}", "", f"Commit {now['commit'][:10]}, against {against}.", ""]
    if seen:
        lines += ["| | what | before | now | worse |", "|---|---|---|---|---|"]
        lines += [f"| {c.kind} | {c.what} | {c.before} | {c.now} | {'yes' if c.worse else ''} |" for c in seen]
        lines.append("")
    lines += ["| part | result | minutes |", "|---|---|---|"]
    for part in now["parts"]:
        result = "done" if part["code"] == 0 else f"ended with {part['code']}"
        lines.append(f"| {part['name']} | {result} | {part['seconds'] / 60:.1f} |")
    for part in now["parts"]:
        if part["code"]:
            lines += ["", f"{part['name']}:", "", *(f"    {line}" for line in part["tail"].splitlines())]
    return "\n".join(lines) + "\n"


def last_night(folder: Path) -> dict[str, Any] | None:
    """The newest readable night of a folder; a file that cannot be read is passed over."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            found = json.loads(path.read_text())
        except ValueError:
            continue
        if isinstance(found, dict) and "commit" in found:
            return found
    return None


def main(folder: Path = FOLDER, run: Run | None = None) -> int:
    """Run a night in the working directory, store it, write its summary; 1 if something became worse."""
    run = run or _run
    commit = run(("git", "rev-parse", "HEAD")).stdout.strip()
    before, date = last_night(folder), datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    now = {"date": date, "commit": commit, **night(parts(commit, before["commit"] if before else None), run)}
    now["verdicts"] = verdicts(now.pop("claims", []))
    now["figures"] = {}
    for path in sorted(Path(".asv", "results").glob(f"*/{commit[:8]}-*.json")):
        now["figures"].update(figures(json.loads(path.read_text())))
    seen = changes(now, before)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{date}-{commit[:8]}.json").write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    text = summary(now, before, seen)
    (folder / "summary.md").write_text(text)
    print(text)
    return int(any(change.worse for change in seen))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    print("$", *command, file=sys.stderr, flush=True)
    return subprocess.run(list(command), capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
