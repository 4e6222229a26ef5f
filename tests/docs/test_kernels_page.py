"""docs/kernels.md names kernels that exist, and its example runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "kernels.md").read_text()
FOLDER = ROOT / "src" / "curvebench" / "kernels"


def sections() -> dict[str, tuple[list[str], list[str]]]:
    """Heading -> the modules that it names, and the kernels that its table's first column names."""
    found = {}
    for part in PAGE.split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        cells = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `")]
        names = [name.split("(")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
        found[heading] = (re.findall(r"`(\w+_torch)`", heading), names)
    return found


@pytest.mark.parametrize("heading", list(sections()))
def test_every_kernel_on_the_page_exists_in_the_modules_named_above_it(heading: str) -> None:
    modules, names = sections()[heading]
    assert modules
    assert names
    defined: set[str] = set()
    for module in modules:
        for node in ast.parse((FOLDER / f"{module}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
                defined |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)
                            and isinstance(node, ast.ClassDef)}  # fmt: skip
    assert set(names) <= defined


def test_the_example_runs() -> None:
    torch = pytest.importorskip("torch")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 3)
    world = {"model": model, "loss_function": torch.nn.functional.cross_entropy,
             "x": torch.randn(5, 2), "y": torch.randint(0, 3, (5,))}  # fmt: skip
    exec(code.replace("range(100)", "range(3)"), world)
    assert world["density"].shape == (500,)
    assert world["trace"].draws == 3
