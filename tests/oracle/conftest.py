"""Makes ``tiny`` importable, keeps what an engine sets in jax inside its test, and BLAS on one thread.

A plugin of pytest may have loaded NumPy before the environment said one thread; two threads of OpenBLAS on a busy
machine wait for each other a hundred times longer than they compute.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "oracle"))


@pytest.fixture(autouse=True)
def _jax_restored() -> Iterator[None]:
    from tiny import jax_restored

    with threadpool_limits(1, user_api="blas"), jax_restored():
        yield
