"""What is printed: a golden table in each format, and tables that a program can read."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from synthetic import make, quick_study

from curvebench.report import tables
from curvebench.report.render import fitting, pretty, render, terminal
from curvebench.store import Record


def example() -> list[Record]:
    reach = [[1.0, 1e-4, v] for v in (1e-6, 2e-6, 1.5e-6)]
    miss = [[1.0, 0.5, v] for v in (0.2, 0.21, 0.19)]
    fixed = {"crossing__seconds": 0.02, "seconds__step__median": 2e-3}
    runs = [make(seed=s, steps=20, values=v, **fixed) for s, v in enumerate(reach)]
    never = {"consumed__seconds": 0.03, "seconds__step__median": 1.5e-3}
    runs += [make("sgd", "jax", seed=s, steps=20, values=v, **never) for s, v in enumerate(miss)]
    return [*runs, make("lbfgs", steps=20, status="unsupported", reason="full batches only")]


GOLDEN = Path(__file__).parent / "golden"
MARKDOWN = (GOLDEN / "least-squares.md").read_text(encoding="utf-8")


def test_markdown() -> None:
    (table,) = tables(example())
    assert render(table, "markdown") == MARKDOWN


def test_latex() -> None:
    (table,) = tables(example())
    assert render(table, "latex") == (GOLDEN / "least-squares.tex").read_text(encoding="utf-8")


def test_latex_sets_everything_within_noise_of_the_best_in_bold() -> None:
    near = [make(m, seed=s, values=[1.0, v]) for m, v in (("adam", 0.2), ("sgd", 0.21)) for s, v in
            enumerate((v, 1.3 * v, 0.8 * v))]  # fmt: skip
    far = [make("lbfgs", seed=s, values=[1.0, v]) for s, v in enumerate((0.9, 0.91, 0.89))]
    (table,) = tables([*near, *far])
    bold = [line.split(" & ")[0] for line in render(table, "latex").splitlines() if line.startswith("\\textbf")]
    assert bold == [r"\textbf{\boldmath Adam}", r"\textbf{\boldmath SGD}"]


def test_plain_text_has_the_same_cells() -> None:
    (table,) = tables(example())
    lines = render(table, "terminal").splitlines()
    assert lines[:2] == ["least squares", "target f(x) - f* ≤ 0.001; budget 20 steps; scale quick"]
    wanted = [
        [c.strip() for c in line.strip("|").split("|")] for line in MARKDOWN.splitlines()[4:9] if "---" not in line
    ]
    assert [re.split(r"\s{2,}", line) for line in lines[3:7]] == wanted
    assert "\x1b" not in "".join(lines), "no colour in a pipe"
    assert not any(line != line.rstrip() for line in lines)


def test_csv_has_every_digit() -> None:
    (table,) = tables(example())
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [row["method"] for row in rows] == ["adam", "sgd", "lbfgs"]
    adam, sgd, lbfgs = rows
    assert float(adam["final"]) == pytest.approx((1e-6 * 2e-6 * 1.5e-6) ** (1 / 3), rel=1e-12)
    assert float(adam["final_low"]) < float(adam["final"]) < float(adam["final_high"])
    assert (adam["reached"], adam["n"], adam["within_noise_of_best"]) == ("3", "3", "True")
    assert (sgd["step"], sgd["step_misses"], sgd["step_low"]) == ("20.0", "3", "")
    assert (lbfgs["final"], lbfgs["final_n"], lbfgs["status"]) == ("", "0", "unsupported:1")


def test_json_is_json() -> None:
    for table in tables(quick_study()):
        again = json.loads(json.dumps(table.to_json(), allow_nan=False))
        assert len(again["rows"]) == 16
        assert again["notes"]


def test_blank_columns_are_blank_not_dashes() -> None:
    runs = [*example(), make("mezo", steps=20, values=[1.0, 0.9, 0.8], keys__machine="ef" * 32)]
    (table,) = tables(runs)
    line = next(x for x in render(table, "markdown").splitlines() if x.startswith("| Adam"))
    cells = [c.strip() for c in line.strip("|").split("|")]
    assert (cells[4], cells[8]) == ("", "")
    assert cells[5] == "10 ± 0"


def test_pipes_in_titles_do_not_break_markdown() -> None:
    (table,) = tables([make(title__method="A|B")])
    line = next(x for x in render(table, "markdown").splitlines() if "A\\|B" in x)
    assert len(re.findall(r"(?<!\\)\|", line)) == 12


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, width: int, **environment: str) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    (table,) = tables(example())
    terminal(table, stream)
    return stream.getvalue()


def test_a_terminal_gets_weight_and_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1m" in shown(monkeypatch, 200)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown(monkeypatch, 200, NO_COLOR="1"))


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_cell_is_cut_whatever_the_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(monkeypatch, width))
    assert "…" not in text
    assert "1.4e-06 ×/÷ 2.4 *" in text
    assert max(map(len, text.splitlines())) <= width
    assert ("Left out for want of width" in text) is (width < 150)


def test_columns_are_left_out_in_a_fixed_order() -> None:
    names = ["method", "framework", "metric", "reached", "seconds\nto target", "steps\nto target", "peak MiB", "status"]
    body = [["a" * 10] * 8]
    assert fitting(names, body, 96) == (list(range(8)), [])
    kept, hidden = fitting(names, body, 95)
    assert hidden == ["peak MiB"]
    assert kept == [0, 1, 2, 3, 4, 5, 7]
    assert fitting(names, body, 10)[0] == [0, 1, 2], "what the table is about always stays"


def test_rich_markup_in_titles_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    (table,) = tables([make(title__method="[red]A[/red]")])
    pretty(table, stream)
    assert "[red]A[/red]" in stream.getvalue()


def test_an_unknown_format_is_refused() -> None:
    (table,) = tables(example())
    with pytest.raises(ValueError, match="must be one of terminal, markdown, csv, latex"):
        render(table, "html")


def test_all_formats_of_a_failed_task() -> None:
    failed: list[Any] = [make(status="crashed", reason="boom")]
    (table,) = tables(failed)
    for form in ("terminal", "markdown", "csv", "latex"):
        assert "crashed" in render(table, form)
