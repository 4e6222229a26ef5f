"""What TeX would misread is escaped, printed numbers become math, and a file is well-formed plain ASCII."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.mathtext import MathTextParser
from synthetic import quick_study

from curvebench import cards
from curvebench.report import tables
from curvebench.report.latex import escape, number, stacked, tabular
from curvebench.report.numbers import text
from curvebench.report.paper_text import render as render_paper
from curvebench.report.papers import judge
from curvebench.report.render import render
from curvebench.statistics import interval


def well_formed(tex: str) -> None:
    """ASCII, braces and dollars closed on every line, environments closed, as many cells in a row as columns."""
    assert tex.isascii(), sorted({c for c in tex if ord(c) > 127})
    lines = [line for line in tex.splitlines() if not line.startswith("%")]
    for line in lines:
        bare = re.sub(r"\\\\|\\[{}$&%#_]", "", line)
        assert bare.count("{") == bare.count("}"), line
        assert bare.count("$") % 2 == 0, line
        assert not re.search(r"(?<!\\)[#%]", line), line
    for name in ("table", "tabular"):
        assert tex.count(f"\\begin{{{name}}}") == tex.count(f"\\end{{{name}}}") > 0
    for inside in re.findall(r"\\toprule(.*?)\\bottomrule", tex, re.DOTALL):
        rows = [row for row in inside.splitlines() if row.endswith("\\\\")]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


def test_words_print_as_they_are() -> None:
    assert escape(r"50 % of a_b & c#1 {x} \n ~ ^") == (
        r"50 \% of a\_b \& c\#1 \{x\} \textbackslash{}n \textasciitilde{} \textasciicircum{}"
    )


@pytest.mark.parametrize(
    ("printed", "tex"),
    [
        ("1.4e-06 ×/÷ 2.4", r"$1.4\times10^{-6} \mathbin{{\times}/{\div}} 2.4$"),
        ("(1.2 ± 0.3)e+07", r"$(1.2 \pm 0.3)\times10^{7}$"),
        ("12.3 [11.9, 13.1]", "$12.3 [11.9, 13.1]$"),
        ("≥ 320 ± 50", r"$\geq 320 \pm 50$"),
        ("> 500", "$> 500$"),
        ("-0.20 ± 0.03 (n = 5, 1 without)", r"$-0.20 \pm 0.03$ (n = 5, 1 without)"),
        ("-", "-"),
        ("diverge", "diverge"),
        ("50% faster", r"50\% faster"),
    ],
)
def test_printed_numbers_become_math(printed: str, tex: str) -> None:
    assert number(printed) == tex


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_what_estimates_print_is_math_that_parses(scale: float) -> None:
    for geometric in (False, True):
        printed = text(interval([scale, 1.1 * scale, 1.3 * scale], geometric=geometric))
        MathTextParser("path").parse(number(printed).replace(r"\mathbin", ""))


def test_a_heading_breaks_where_a_terminal_breaks_it() -> None:
    assert stacked("peak MiB") == "peak MiB"
    assert stacked("f(x) - f*, geometric mean") == r"\shortstack[r]{f(x) - f* \\ geometric mean}"


def test_the_rules_are_booktabs() -> None:
    made = tabular(["a", "b"], [["x", "1"], ["y", "2"]], {(1, 0)}, "lr")
    assert made.splitlines() == [
        r"\begin{tabular}{lr}", r"\toprule", r"a & b \\", r"\midrule", r"x & 1 \\", r"\textbf{\boldmath y} & 2 \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def test_tables_of_a_study_and_of_every_paper_are_well_formed() -> None:
    for table in tables(quick_study()):
        well_formed(render(table, "latex"))
    for name in cards.names("papers"):
        well_formed(render_paper(judge(cards.paper(name), []), "latex"))


def test_the_golden_files_are_well_formed() -> None:
    for path in (Path(__file__).parent / "golden").glob("*.tex"):
        well_formed(path.read_text(encoding="utf-8"))
