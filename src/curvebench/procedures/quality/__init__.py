"""Curvature quality: every approximation, as the shipped methods build it, against dense truth on small models.

A task is trained by L-BFGS in full batch; at its first point, after a tenth of the steps and at the end, over seed
blocks, each approximation C is built by the method that uses it and compared with the Gauss-Newton matrix and with the
Hessian (:mod:`curvebench.statistics.matrices`). The damping is a multiple of the Gauss-Newton matrix's trace, the same
for both truths and all approximations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from curvebench import cards
from curvebench.cards import TaskCard
from curvebench.errors import CurvebenchError, UnknownNameError
from curvebench.machine import fingerprint
from curvebench.procedures.certify import lab
from curvebench.procedures.quality.approximations import Approximation, Built, Given, approximations
from curvebench.procedures.quality.site import Site
from curvebench.run.environment import versions
from curvebench.schedule.provenance import command, git
from curvebench.spec import Query
from curvebench.statistics.matrices import Truth
from curvebench.store.quality import SCHEMA
from curvebench.types import FloatArray, Json

__all__ = ["TASKS", "Approximation", "approximations", "measure", "suitable"]

TASKS = ("softmax-digits", "deep-linear", "digits-mlp", "digits-convolution", "teacher-student-tanh", "pinn-poisson")
"""The oracle models."""
LARGEST = 3000
"""Parameters beyond which the whole Hessian is not formed."""
STEPS = 150
"""Of L-BFGS, from the first checkpoint to the last."""
NEGLIGIBLE = 1e-10
"""A gradient this much shorter than at the start is rounding."""


def suitable(name: str) -> str | None:
    """Why a task cannot be measured; None if it can.

    Raises:
        CurvebenchError: no such task.
    """
    card = cards.task(name)
    if missing := [str(q) for q in (Query.HVP, Query.GGNVP) if q not in card.offers]:
        return f"{name} does not offer {', '.join(missing)}, which the dense truth is made of"
    d = lab.problem(name, 0, batch="full").dimension
    return f"{name} has {d} parameters: at most {LARGEST}, whose Hessian fits" if d > LARGEST else None


def measure(
    task: str,
    *,
    seeds: int = 5,
    dampings: Sequence[float] = (1e-3,),
    steps: int = STEPS,
    names: Sequence[str] = (),
    tick: Callable[[], None] = lambda: None,
) -> Json:
    """Measure the approximations on a task: the content of its file (:mod:`curvebench.store.quality`).

    Args:
        task: a task's name.
        seeds: seed blocks, each with its own start and draws.
        dampings: multiples of the Gauss-Newton matrix's trace.
        steps: of training.
        names: approximations; none: all.
        tick: called after every checkpoint.

    Raises:
        UnknownNameError: no such approximation.
        CurvebenchError: a task that cannot be measured, or a number outside its range.
    """
    if seeds < 1 or steps < 10:
        raise CurvebenchError(f"quality: seeds = {seeds}, steps = {steps}: must be at least 1 and 10")
    if not dampings or any(not (math.isfinite(value) and value > 0) for value in dampings):
        raise CurvebenchError(f"quality: dampings = {list(dampings)}: must be positive numbers")
    if (why := suitable(task)) is not None:
        raise CurvebenchError(f"quality: {why}")
    known = {one.name: one for one in approximations()}
    for name in names:
        if name not in known:
            raise UnknownNameError("approximation", name, list(known))
    chosen = [one for one in known.values() if not names or one.name in names]
    card, began = cards.task(task), datetime.now(UTC)
    marks = {"init": 0, "middle": steps // 10, "end": steps}
    cells: list[Json] = []
    for block in range(seeds):
        scale: float | None = None
        for checkpoint, step, site in _checkpoints(card, block, marks):
            scale = float(np.linalg.norm(site.gradient)) if scale is None else scale
            common = {"seed_block": block, "checkpoint": checkpoint, "step": step, "loss": site.loss}
            cells += [{**common, **cell} for cell in _cells(site, chosen, dampings, NEGLIGIBLE * scale)]
            tick()
    problem = lab.problem(task, 0, batch="full")
    return {
        "schema": SCHEMA, "task": task, "title": card.title, "scale": "quick", "d": problem.dimension,
        "n": len(problem.train), "seeds": seeds, "dampings": [float(value) for value in dampings],
        "trained_by": f"lbfgs, {steps} steps, full batch", "checkpoints": list(marks),
        "approximations": [{"name": one.name, "title": one.title, "about": one.about, "method": one.method,
                            "options": dict(one.options)} for one in chosen],
        "cells": cells,
        "provenance": {"command": command(), "started": began.isoformat(timespec="seconds"), "git": git(),
                       "versions": versions(), "machine": fingerprint(),
                       "seconds": round((datetime.now(UTC) - began).total_seconds(), 1)},
    }  # fmt: skip


def _checkpoints(card: TaskCard, block: int, marks: dict[str, int]) -> Iterator[tuple[str, int, Site]]:
    problem = lab.problem(card.name, block, batch="full")
    run, taken = lab.Run(problem, "lbfgs"), 0
    for name, step in marks.items():
        run.steps(step - taken)
        taken = step
        yield name, step, Site(card, problem, run.parameters(), name)


def _cells(site: Site, chosen: Sequence[Approximation], dampings: Sequence[float], negligible: float) -> Iterator[Json]:
    ggn, hessian = site.ggn(), site.hessian()
    layers = site.layers()
    for relative in dampings:
        lam = relative * float(np.trace(ggn))
        truths = {"ggn": Truth(ggn, site.gradient, lam, layers, negligible),
                  "hessian": Truth(hessian, site.gradient, lam, layers, negligible)}  # fmt: skip
        best = {name: site.decrease(truth.direction, 1.0) for name, truth in truths.items()}
        for one in chosen:
            built, calls, status, reason = _built(one, site, Given(ggn, hessian, lam))
            for name, truth in truths.items():
                cell: Json = {"approximation": one.name, "truth": name, "damping": float(relative), "lam": lam,
                              "status": status, "reason": reason, "calls": calls}  # fmt: skip
                if built is not None:
                    cell |= asdict(truth.compare(built.matrix, built.direction))
                    cell["decrease"] = _decrease(site, truth, built, cell["scale"], best[name])
                yield cell


def _built(one: Approximation, site: Site, given: Given) -> tuple[Built | None, dict[str, int], str, str]:
    """The approximation, what it asked of the oracle, and how that ended."""
    for query in one.needs:
        if query not in site.card.offers:
            why = site.card.refuses.get(query, "the task does not offer it")
            return None, {}, "unsupported", f"needs {query}: {why}"
    before = list(site.oracle.counts)
    try:
        built = site.kept(lambda here: one.build(here, given))
    except CurvebenchError as error:
        return None, {}, "failed", str(error)
    asked = [after - start for after, start in zip(site.oracle.counts, before, strict=True)]
    if not np.isfinite(built.matrix).all():
        return None, {}, "failed", "the matrix is not finite"
    return built, _calls(asked), "measured", ""


def _calls(counts: Sequence[int]) -> dict[str, int]:
    from curvebench.oracle.ledger import as_dict

    return {name: count for name, count in as_dict(list(counts)).items() if count}


def _decrease(site: Site, truth: Truth, built: Built, scale: float | None, best: float) -> float | None:
    """The loss's real decrease at the best step along x, over that of the truth's own full step."""
    if scale is None or best <= 0:
        return None
    x: FloatArray | None = truth.solve(built.matrix) if built.direction is None else built.direction
    if x is None:
        return None
    found: Any = site.decrease(x, scale) / best
    return float(found) if math.isfinite(found) else None
