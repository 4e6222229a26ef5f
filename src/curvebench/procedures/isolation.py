"""What isolation costs: from "start this run" to the run's first step, in a warm study.

The path is the real one: fork server, pinned child, cards, task, engine, first evaluation, compilation in jax. Reported
are the medians over runs after the first, which waits for the server's imports.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np

from curvebench import cards, machine
from curvebench.cards import MethodCard, TaskCard
from curvebench.run import execute
from curvebench.schedule import jobs_of, server, specify
from curvebench.schedule.isolation import Isolation
from curvebench.schedule.study import own_modules
from curvebench.spec import Budget, RunSpec
from curvebench.types import Json

WORKER = f"{__name__}:until_first_step"


def until_first_step(spec: RunSpec) -> Json:
    """Execute ``spec`` and return the reading of the system-wide monotonic clock at the end of its first step."""
    module: Any = importlib.import_module(f"curvebench.run.engine_{spec.framework}")
    engine = getattr(module, f"{spec.framework.capitalize()}Engine")
    original = engine.step
    seen: list[float] = []

    def step(self: Any, index: int, deadline: float) -> None:
        original(self, index, deadline)
        seen.append(time.monotonic())

    engine.step = step
    try:
        record = execute(spec)
    finally:
        engine.step = original
    return {"first_step": seen[0] if seen else None, "status": record["status"], "reason": record["reason"]}


def isolation_seconds(framework: str, runs: int = 10, task: str = "least-squares", method: str = "sgd") -> list[float]:
    """Seconds from :meth:`Isolation.start` to the end of the first step, one per run after a warm-up.

    Args:
        framework: ``torch`` or ``jax``.
        runs: at least 1.
        task: name of a task card.
        method: name of a method card.

    Raises:
        RuntimeError: a run made no step.
    """
    card: TaskCard = cards.task(task)
    optimiser: MethodCard = cards.method(method)
    specs = [
        specify(card, method, optimiser, framework, "quick", Budget(1), {}, "card", seed_block=block)
        for block in range(runs + 1)
    ]
    children = Isolation(
        WORKER, server.preload_for([framework], "curvebench.run.execute", *own_modules(jobs_of(specs)))
    )
    cores = machine.affinity()
    seconds = []
    try:
        for spec in specs:
            began = time.monotonic()
            children.start(spec, cores, 300.0)
            (outcome,) = children.wait(300.0)
            first = (outcome.record or {}).get("first_step")
            if first is None:
                raise RuntimeError(f"{spec.label}: no step: {outcome.reason or outcome.record}")
            seconds.append(float(first) - began)
    finally:
        children.kill()
        server.stop()
    return seconds[1:]


def median(framework: str, runs: int = 10) -> float:
    """Median of :func:`isolation_seconds`."""
    return float(np.median(isolation_seconds(framework, runs)))
