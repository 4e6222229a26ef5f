"""docs/kernels.md names kernels that exist, and its example runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "kernels.md").read_text()


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
    found = [importlib.import_module(f"curvebench.kernels.{module}") for module in modules]
    missing = [name for name in names if not any(defines(module, name) for module in found)]
    assert missing == []


def defines(module: ModuleType, name: str) -> bool:
    """Whether the module itself defines ``function`` or ``Class.method``; methods may be inherited."""
    top, _, method = name.partition(".")
    found = getattr(module, top, None)
    return getattr(found, "__module__", "") == module.__name__ and (not method or hasattr(found, method))


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
