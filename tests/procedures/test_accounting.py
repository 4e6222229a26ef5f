"""What ledger and clock cost a step is measured by one call."""

from __future__ import annotations

import math

import pytest

from curvebench.procedures.accounting import accounting


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_ledger_and_clock_are_measured(framework: str) -> None:
    found = accounting(framework, steps=200, pairs=5)
    assert found.n == 5
    assert found.low <= found.median <= found.high
    assert math.isfinite(found.median)
    if framework == "torch":
        assert found.low > 0.0, "a clock and a count are more than an empty loop"


@pytest.mark.parametrize(("framework", "steps"), [("numpy", 10), ("torch", 0)])
def test_what_cannot_be_measured_is_refused(framework: str, steps: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        accounting(framework, steps=steps)
