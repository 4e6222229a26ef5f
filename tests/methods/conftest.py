"""Makes ``tiny`` and ``replay`` importable, and keeps what an engine sets in jax inside its test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))
sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def _jax_restored() -> Iterator[None]:
    from tiny import jax_restored

    with jax_restored():
        yield
