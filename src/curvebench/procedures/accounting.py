"""What ledger and clock cost a step on a CPU: the same loop with them and without, interleaved in one process.

Run it: ``python -c "from curvebench.procedures.accounting import accounting; print(accounting('torch'))"``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from curvebench.clock import Clock
from curvebench.oracle import ledger as L
from curvebench.spec import Query


class Accounting(NamedTuple):
    """Microseconds of CPU time per step of ledger and clock together: median, least and most of n pairs."""

    median: float
    low: float
    high: float
    n: int


def accounting(framework: str, steps: int = 2000, pairs: int = 15) -> Accounting:
    """Microseconds a step, for a step that asks one gradient.

    Args:
        framework: ``torch`` or ``jax``.
        steps: in one measurement.
        pairs: interleaved measurements of each side.

    Raises:
        ValueError: another framework, or fewer than one step or pair.
    """
    if framework not in ("torch", "jax"):
        raise ValueError(f"framework = {framework!r}: must be 'torch' or 'jax'")
    if steps < 1 or pairs < 1:
        raise ValueError(f"steps = {steps}, pairs = {pairs}: must be at least 1")
    counted, bare = {"torch": _torch, "jax": _jax}[framework](steps)
    counted()
    bare()
    found = sorted((_seconds(counted) - _seconds(bare)) / steps * 1e6 for _ in range(pairs))
    return Accounting(median(found), found[0], found[-1], pairs)


def _seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _torch(steps: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The oracle's own counting and a clock; without them, an empty loop."""
    from curvebench.oracle.torch import TorchOracle

    oracle: Any = object.__new__(TorchOracle)  # only its ledger is asked: no task is needed
    oracle.needs, oracle.counts = frozenset({Query.GRADIENT}), [0] * len(L.COLUMNS)

    def counted() -> None:
        clock = Clock(lambda: None)
        for _ in range(steps):
            clock.start()
            oracle.count(Query.GRADIENT, 128)
            clock.stop()

    def bare() -> None:
        for _ in range(steps):
            pass

    return counted, bare


def _jax(steps: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """A jitted step with the ledger in its carried state, waited for by the clock; without, the same step awaited."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    row = np.zeros(len(L.COLUMNS), np.int32)
    row[L.COLUMN[Query.GRADIENT.value]], row[L.SAMPLES] = 1, 128
    with_ledger = jax.jit(lambda x, ledger: (0.5 * x, ledger + row))
    without = jax.jit(lambda x: 0.5 * x)
    start = jnp.ones(8, jnp.float32)

    def counted() -> None:
        state: Any = (start, jnp.zeros(len(L.COLUMNS), jnp.int32))
        clock = Clock(lambda: jax.block_until_ready(state))
        for _ in range(steps):
            clock.start()
            state = with_ledger(*state)
            clock.stop()

    def bare() -> None:
        x = start
        for _ in range(steps):
            x = without(x)
            jax.block_until_ready(x)

    return counted, bare
