"""Records as a run would have made them, out of a formula: for tests of the store, the statistics and the report.

Also run by hand to look at a report: ``python tests/store/synthetic.py FOLDER``.
"""

from __future__ import annotations

import math
import random
import sys
from typing import Any

from curvebench.spec import Budget, RunSpec
from curvebench.store import SCHEMA, Record, Store

CODE = "c0de" * 16
MACHINE = "ab" * 32
FAMILIES = {
    "mezo": ("MeZO", "zeroth-order"),
    "sgd": ("SGD", "first-order"),
    "momentum": ("SGD with momentum", "first-order"),
    "nesterov": ("Nesterov", "first-order"),
    "adam": ("Adam", "first-order"),
    "adamw": ("AdamW", "first-order"),
    "lbfgs": ("L-BFGS", "quasi-newton"),
    "adahessian": ("AdaHessian", "second-order"),
}


def make_json(
    method: str = "adam",
    framework: str = "torch",
    seed: int = 0,
    *,
    task: str = "least-squares",
    status: str | None = None,
    reason: str = "",
    steps: int = 500,
    budget_seconds: float | None = None,
    every: int = 10,
    rate: float = 0.02,
    noise: float = 0.05,
    step_seconds: float = 4e-5,
    calls: int = 1,
    target: float | None = 1e-3,
    direction: str = "min",
    values: list[float | None] | None = None,
    peak: int | None = 3 << 20,
    **changes: Any,
) -> dict[str, Any]:
    """A record as JSON. The metric falls as exp(-rate step) (``min``) or rises as 1 - exp(-rate step) (``max``).

    ``changes`` set keys by their path, ``provenance__concurrent=2`` for ``provenance.concurrent``.
    """
    rng = random.Random(f"{task}{method}{framework}{seed}")
    own = rate * (1.0 + noise * rng.gauss(0, 1))
    at = list(range(0, steps + 1, every))
    if values is None:
        falling = [math.exp(-own * s) * (1.0 + 0.02 * rng.gauss(0, 1)) for s in at]
        values = [max(v, 1e-12) for v in falling] if direction == "min" else [1.0 - min(v, 1.0) for v in falling]
    at = at[: len(values)]
    seconds = step_seconds * (1.0 + 0.05 * rng.random())
    better = (lambda v: v <= target) if direction == "min" else (lambda v: v >= target)
    failed = status in ("unsupported", "crashed", "out_of_memory")
    met = [i for i, v in enumerate(values) if v is not None and target is not None and better(v)]
    if status is None:
        status = "reached" if met else "budget"
    crossing = None
    if status == "reached":
        where = at[met[0]] if met else at[-1]
        crossing = {"step": where, "seconds": where * seconds, "oracle_calls": where * calls,
                    "gradient_equivalents": 1.5 * where * calls}  # fmt: skip
    spec = RunSpec(
        task=task,
        scale="quick",
        method=method,
        hyperparameters=(("lr", 0.1),),
        needs=("gradient",),
        framework=framework,
        device="cpu",
        dtype="float64",
        seed_block=seed,
        budget=Budget(steps, budget_seconds),
        source="tuned",
        cards=(("methods/" + method, "0" * 64), ("tasks/" + task, "1" * 64)),
    )
    title, family = FAMILIES.get(method, (method, "first-order"))
    end = at[-1] if at else 0
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "keys": {"run": spec.id, "code": CODE, "machine": MACHINE},
        "attempt": 1,
        "spec": spec.to_json(),
        "title": {
            "method": title,
            "task": task.replace("-", " "),
            "method_family": family,
            "task_family": "regression",
            "twin": method != "lbfgs",
        },
        "status": status,
        "reason": reason or f"ended as {status}",
        "metric": {
            "name": "gap" if direction == "min" else "accuracy",
            "label": "f(x) - f*" if direction == "min" else "validation accuracy",
            "direction": direction,
            "target": target,
            "optimum": 0.25 if direction == "min" else None,
        },
        "curve": {
            "step": at,
            "seconds": [s * seconds for s in at],
            "oracle_calls": [s * calls for s in at],
            "gradient_equivalents": [1.5 * s * calls for s in at],
            "metric": values,
            "loss": [None if v is None else v + 0.25 for v in values],
            "test": [None] * len(at),
        },
        "final": {"metric": values[-1] if values else None, "loss": None, "test": None},
        "crossing": crossing,
        "consumed": {"step": end, "seconds": end * seconds, "oracle_calls": end * calls,
                     "gradient_equivalents": 1.5 * end * calls},
        "ledger": {"loss": 0, "gradient": end * calls, "draws": 0, "samples": 2000 * end, "self_reported": []},
        "seconds": {
            "setup": 0.01,
            "compilation": 0.4 if framework == "jax" else None,
            "cache": "miss" if framework == "jax" else None,
            "first_step": 2 * seconds,
            "step": {"median": seconds, "p10": 0.9 * seconds, "p90": 1.2 * seconds, "n": max(end - 1, 0),
                     "mean": 1.05 * seconds},
            "plain": None,
            "refresh": None,
            "evaluation": 0.002,
            "total": 0.5,
        },
        "memory": {"peak_bytes": peak, "parameter_bytes": 800, "state_bytes": 1600, "state": {"moments": 1600},
                   "state_formula": 1600, "step_bytes": 4096, "compiled": None, "how": "growth of VmHWM",
                   "step_how": "growth of VmHWM"},
        "provenance": {
            "command": "curvebench bench quick",
            "started": f"2026-03-0{1 + seed % 9}T12:00:00Z",
            "git": {"commit": "d" * 40, "dirty": False},
            "versions": {"curvebench": "0.1.0", framework: "2.0"},
            "machine": {
                "cpu": "Example CPU",
                "cores": {"available": 2},
                "memory_gib": 24,
                "os": "Linux",
                "python": "3.11",
            },
            "threads": 2,
            "concurrent": 1,
            "cpu_wall_ratio": 1.9,
            "load": 0.3,
            "others": 0.01,
            "steal": 0.0,
            "busy": None,
            "thread_settings": {"OMP_NUM_THREADS": "2"},
            "notes": [],
        },
        "work": {
            "gradient": {"flops": 2e6, "bytes": 1e6},
            "step": {"flops": 3e6 * calls, "bytes": 2e6},
            "plain": {"flops": 3e6 * calls, "bytes": 2e6},
            "refresh": None,
            "steps": 1,
            "oracle_calls": calls,
            "unknown": [], "ledger": {"gradient": 1.0},
        },
    }  # fmt: skip
    if failed:
        data["curve"] = {name: [] for name in data["curve"]}
        data["final"] = data["consumed"] = data["seconds"] = None
        data["memory"]["peak_bytes"] = data["work"] = None
    for path, value in changes.items():
        *folders, last = path.split("__")
        place = data
        for folder in folders:
            place = place[folder]
        place[last] = value
    data["keys"]["run"] = changes.get("keys__run", RunSpec.from_json(data["spec"]).id)
    return data


def make(method: str = "adam", framework: str = "torch", seed: int = 0, **options: Any) -> Record:
    """A record; options as for :func:`make_json`."""
    return Record.from_json(make_json(method, framework, seed, **options))


def quick_study(seeds: int = 3) -> list[Record]:
    """What the quick study leaves: three tasks, eight methods, two frameworks, with the failures that do happen."""
    rates = [0.0007, 0.008, 0.016, 0.017, 0.022, 0.021, 0.05, 0.03]
    costs = [2e-5, 2.2e-5, 2.5e-5, 2.6e-5, 6e-5, 6.5e-5, 4e-4, 2.4e-4]
    calls = [2, 1, 1, 1, 1, 1, 3, 2]
    out = []
    for task, slower, direction in (
        ("least-squares", 1.0, "min"),
        ("logistic-breast-cancer", 3.0, "min"),
        ("digits-cnn", 60.0, "max"),
    ):
        for method, rate, cost, call in zip(FAMILIES, rates, costs, calls, strict=True):
            for framework in ("torch", "jax"):
                for seed in range(seeds):
                    options: dict[str, Any] = {
                        "rate": rate * (0.7 if slower > 1 else 1.0),
                        "step_seconds": cost * slower * (1.3 if framework == "jax" else 1.0),
                        "calls": call,
                        "direction": direction,
                        "target": 1e-3 if direction == "min" else 0.95,
                        "task": task,
                    }
                    if task == "digits-cnn" and method == "lbfgs":
                        options |= {"status": "unsupported", "reason": "L-BFGS needs full batches; digits-cnn has 64"}
                    if task == "logistic-breast-cancer" and method == "nesterov" and seed == 1:
                        options |= {"status": "diverged", "values": [1.0, 3.0, 40.0, 1e4, None]}
                    if task == "digits-cnn" and method == "adamw" and seed == 2 and framework == "jax":
                        options |= {"status": "crashed", "reason": "RuntimeError: synthetic"}
                    out.append(make(method, framework, seed, **options))
    return out


def append_many(folder: str, count: int, who: int, start: Any) -> None:
    """Append the same run many times, from the moment ``start`` is set: for tests with several processes."""
    store = Store(folder)
    start.wait()
    for k in range(count):
        store.append(make(reason=f"{who}:{k}"))


if __name__ == "__main__":
    store = Store(sys.argv[1])
    for one in quick_study():
        store.append(one)
