"""Every method has a page; what the pages import and the files whose tests they name exist."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted(path.stem for path in (ROOT / "methods").glob("*.toml"))
PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))


@pytest.mark.parametrize("name", CARDS)
def test_every_card_has_a_page_with_its_cost_and_what_was_measured(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    assert page.startswith("# ")
    assert "\n## Cost\n" in page
    assert "\n## Measured\n" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_imports_and_runs_exists(page: Path) -> None:
    text = page.read_text()
    found = {"tests", *re.findall(r"pytest(?: -\S+(?: nightly)?)* (tests/[\w/]+\.py)", text)}
    assert [path for path in found if not (ROOT / path).exists()] == []
    for name in re.findall(r"check method (\S+) --framework", text):
        assert name in CARDS
    for source in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("curvebench"):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
