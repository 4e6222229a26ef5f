"""The Python on every page runs: a block is a fragment of a training loop, and the world below is the rest of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Fragment:
    """One block and where it stands."""

    page: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def fragments() -> list[Fragment]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```python([^\n]*)\n(.*?)^```\s*$", text, re.MULTILINE | re.DOTALL):
            if "no-test:" not in match[1] and "file:" not in match[1]:
                line = text[: match.start()].count("\n") + 1
                found.append(Fragment(str(page.relative_to(ROOT)), line, match[2]))
    return found


def world(code: str) -> dict[str, Any]:
    """What the pages' fragments take for granted: a small classifier, or a regression where the loss is squared."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
    if "mse_loss" in code:
        batches = [(x, torch.randn(8, 3)) for x, _ in batches]
    x, y = batches[0]
    return {"torch": torch, "nn": nn, "F": F, "model": model, "batches": batches, "loader": batches, "x": x, "y": y,
            "criterion": F.cross_entropy, "loss_function": F.cross_entropy}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")  # what AdaHessian's loop does
@pytest.mark.parametrize("fragment", fragments(), ids=str)
def test_a_fragment_runs(fragment: Fragment) -> None:
    exec(compile(fragment.code, str(fragment), "exec"), world(fragment.code))
