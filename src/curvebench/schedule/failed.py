"""The record of a run whose process could not write one: killed, crashed, timed out."""

from __future__ import annotations

import contextlib
import time
from importlib import metadata

import curvebench
from curvebench import cards
from curvebench.cards import MethodCard, TaskCard
from curvebench.errors import CurvebenchError
from curvebench.schedule.isolation import Outcome
from curvebench.schedule.references import method_card
from curvebench.spec import RunSpec, Status
from curvebench.types import Json

LIBRARIES = {"torch": ("torch", "numpy"), "jax": ("jax", "jaxlib", "optax", "numpy")}
LINES = 10
"""Lines of what a run printed last that its record keeps."""


def failed_record(outcome: Outcome, status: Status, reason: str) -> Json:
    """Every key that ``run.execute`` returns, empty where only the run itself could have known."""
    spec = outcome.spec
    said = [line[:300] for line in outcome.output.splitlines() if line.strip()][-LINES:]
    return {
        "spec": spec.to_json(),
        "title": title(spec),
        "status": status.value,
        "reason": reason,
        "metric": metric(spec),
        "curve": None,
        "final": None,
        "crossing": None,
        "consumed": None,
        "ledger": None,
        "seconds": {"total": outcome.seconds},
        "memory": None,
        "provenance": {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - outcome.seconds)),
            "versions": _versions(spec.framework),
            "threads": len(outcome.cores),
            "notes": [f"printed: {line}" for line in said],
        },
        "work": None,
    }


def title(spec: RunSpec) -> Json:
    """What the cards of a run call things; its own names where a card is gone."""
    task, method = cards_of(spec)
    return {
        "method": method.title if method else spec.method,
        "task": task.title if task else spec.task,
        "method_family": method.family if method else "unknown",
        "task_family": task.family if task else "unknown",
        "twin": method.twin if method else True,
    }


def metric(spec: RunSpec) -> Json:
    """What the task's card says of its metric."""
    task, _ = cards_of(spec)
    if task is None:
        return {"name": "metric", "label": "metric", "direction": "min", "target": None, "optimum": None}
    return {
        "name": task.metric.name,
        "label": task.metric.label,
        "direction": task.metric.direction,
        "target": task.at(spec.scale).target,
        "optimum": task.optimum.value if task.optimum else None,
    }


def cards_of(spec: RunSpec) -> tuple[TaskCard | None, MethodCard | None]:
    """The cards of a run, None for one that has vanished since the run was planned: its failure is worth a record."""
    task: TaskCard | None = None
    method: MethodCard | None = None
    with contextlib.suppress(CurvebenchError):
        task = cards.task(spec.task)
    with contextlib.suppress(CurvebenchError):
        method = method_card(spec.method, spec.needs, spec.framework)
    return task, method


def _versions(framework: str) -> dict[str, str]:
    found = {"curvebench": curvebench.__version__}
    for name in LIBRARIES.get(framework, ()):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # that it is missing may be why the run failed; its reason says so
    return found
