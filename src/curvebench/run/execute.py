"""From a run's spec to what came out of it; what a method does wrong becomes a status with a reason."""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from threadpoolctl import threadpool_limits

from curvebench import __version__, cards, machine, tasks
from curvebench.cards import MethodCard, TaskCard
from curvebench.clock import Distribution, by_kind, distribution
from curvebench.errors import CurvebenchError, MissingPackageError, UnmetNeedError
from curvebench.methods import resolve
from curvebench.methods.scheduled import note
from curvebench.oracle.ledger import COLUMNS, as_dict, check_needs
from curvebench.run.cap import check_cap
from curvebench.run.contention import Contention
from curvebench.run.environment import LIBRARIES, thread_settings, versions
from curvebench.run.loop import Goal, Trajectory, train
from curvebench.run.memory import PeakMemory
from curvebench.run.replay import Replay, account, replay
from curvebench.spec import Query, RunSpec, Status
from curvebench.types import Json


def prepare(spec: RunSpec) -> tuple[MethodCard, TaskCard]:
    """The cards of a run, refused before anything is trained.

    Raises:
        CardError: a card is missing or bad.
        UnmetNeedError: the method needs a query that the task cannot answer, or has no code for the framework.
    """
    method = resolve(spec.method, spec.needs, spec.framework)
    if spec.framework not in method.implementation:
        there = " and ".join(method.frameworks)
        raise UnmetNeedError(f"{method.name}: no implementation in {spec.framework}: there is {there}")
    task = cards.task(spec.task)
    needs = [Query(need) for need in spec.needs]
    check_needs(method.name, needs, task.name, task.offers, task.refuses)
    return method, task


def execute(spec: RunSpec) -> Json:
    """Run one spec in this process and return everything of its record but the keys and the scheduler's part.

    Statuses: ``reached``, ``budget``, ``diverged``, ``unsupported`` (an unmet need, with the sentence),
    ``out_of_memory``, ``crashed`` (what the step raised). ``timeout`` belongs to the scheduler.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    load, threads = os.getloadavg()[0], machine.available_cores()
    threadpool_limits(threads, user_api="blas")  # NumPy's BLAS was loaded before this process was pinned to its cores
    out = Trajectory()
    engine: Any = None
    period = 1
    stated: int | None = None
    setup: float | None = None
    peak, contention = PeakMemory(), Contention()
    title: Json = {"method": spec.method, "task": spec.task, "method_family": "", "task_family": "", "twin": True}
    metric: Json = {"name": "", "label": "", "direction": "min", "target": None, "optimum": None}
    size: int | None = None
    notes: list[str] = []
    seen: Replay | None = None
    try:
        method, task = prepare(spec)
        period = method.refresh_every(spec.hyperparameters)
        title = {"method": method.title, "task": task.title, "method_family": str(method.family),
                 "task_family": str(task.family), "twin": method.twin}  # fmt: skip
        scale, cap = task.at(spec.scale), task.cap(spec.scale, spec.budget)
        metric |= {"name": task.metric.name, "label": task.metric.label, "direction": str(task.metric.direction),
                   "target": scale.target}  # fmt: skip
        problem = tasks.load(task, spec.scale, spec.seed_block)
        metric["optimum"] = problem.optimum
        title["task"] += problem.suffix  # the same task from random weights is another line of a table
        notes += (*problem.notes, *note(method, spec))
        number = int(spec.dtype[-2:]) // 8
        size = problem.dimension * number
        kept = method.state_numbers(spec.hyperparameters, d=problem.dimension, batch=problem.order().size)
        stated = None if kept is None else round(kept * number)
        module = _import_engine(spec.framework)
        if spec.framework == "jax":
            module.use_cache(cache_folder() / "xla")
        if spec.budget.gradient_equivalents is not None:
            seen = _beforehand(_engine(module, spec)(spec, problem, method, threads), period)
        peak = PeakMemory()
        engine = _engine(module, spec)(spec, problem, method, threads)
        check_cap(method, spec, cap, dimension=problem.dimension, batch=problem.order().size,
                  loss_seconds=engine.loss_seconds)  # fmt: skip
        setup = time.perf_counter() - began
        goal = Goal(scale.target, str(task.metric.direction), task.metric.name)
        contention = Contention()
        train(engine, replace(spec.budget, seconds=cap), goal, scale.evaluate_every, out, seen.meter if seen else None)
    except UnmetNeedError as error:
        out.status, out.reason = Status.UNSUPPORTED, str(error)
    except (Exception, MemoryError) as error:  # a method's code may raise anything: it becomes the row's reason
        out.status, out.reason = _status(error, spec.framework), _sentence(error)
    if out.status not in (Status.REACHED, Status.BUDGET):
        out.crossing = None
    wall = time.perf_counter() - began
    cpu = time.process_time() - cpu_began
    peak_bytes, how = peak.read()
    shares = contention.read()
    notes = [*notes, *(engine.notes() if engine is not None else [])]
    counts = engine.counts() if engine is not None and out.status is not Status.OUT_OF_MEMORY else [0] * len(COLUMNS)
    laps = engine.clock.laps if engine is not None else []
    times: dict[str, Distribution | None] = {"step": distribution(laps), "plain": None, "refresh": None}
    memory: Json = {"state_bytes": None}
    if engine is not None:
        kinds = engine.state_bytes()
        memory = {"state_bytes": sum(kinds.values()), "state": kinds, "state_formula": stated,
                  "compiled": engine.compiled_memory()}  # fmt: skip
    if out.status in (Status.REACHED, Status.BUDGET) and out.consumed["step"]:
        try:  # last: it moves the parameters on and adds to the ledger
            notes = [*notes, *(f"{name} at the end: {value:.6g}" for name, value in engine.scores().items())]
            memory["step_bytes"], memory["step_how"] = engine.step_peak(out.consumed["step"])
            seen = seen or replay(engine, out.consumed["step"] + 1, period)
            times["plain"], times["refresh"] = by_kind(laps, period, seen.dear)
        except Exception as error:  # a step that fails now, such as on memory, spoils no run that has ended
            notes = [*notes, f"work not counted: {_sentence(error)}"]
    work = seen.work if seen is not None else None
    ledger: Json = as_dict(counts)
    if engine is not None and (unknown := engine.uncounted()):
        ledger |= dict.fromkeys(unknown)
        if work is not None:
            work["ledger"] |= dict.fromkeys(unknown)
        notes = [*notes, f"{' and '.join(unknown)} not counted: the library that keeps the factors does not say"]
    account(out, seen.meter if seen is not None else None)
    return {
        "spec": spec.to_json(),
        "title": title,
        "status": out.status.value,
        "reason": out.reason,
        "metric": metric,
        "curve": {"step": out.step, "seconds": out.seconds, "oracle_calls": out.oracle_calls,
                  "gradient_equivalents": out.gradient_equivalents,
                  "metric": _finite(out.metric), "loss": _finite(out.loss), "test": _finite(out.test)},
        "final": {key: (_finite(values)[-1] if values else None)
                  for key, values in (("metric", out.metric), ("loss", out.loss), ("test", out.test))},
        "crossing": out.crossing,
        "consumed": out.consumed,
        "ledger": {**ledger, "self_reported": engine.self_reported if engine is not None else []},
        "seconds": {
            "setup": setup,
            "compilation": engine.compilation if engine is not None else None,
            "cache": engine.cache if engine is not None else None,
            "first_step": laps[0] if laps else None,
            **{name: d and d._asdict() for name, d in times.items()},
            "evaluation": out.evaluation_seconds,
            "total": wall,
        },
        "memory": {**memory, "peak_bytes": peak_bytes, "how": how, "parameter_bytes": size},
        "provenance": {
            "started": started,
            "versions": {"curvebench": __version__, **versions()},
            "threads": threads,
            "cpu_wall_ratio": cpu / wall,
            "load": load,
            "others": shares.others,
            "steal": shares.steal,
            "busy": shares.busy,
            "thread_settings": thread_settings(spec.framework),
            "notes": notes,
        },
        "work": work,
    }  # fmt: skip


def _beforehand(engine: Any, period: int) -> Replay:
    """What a period of steps costs, counted on an engine of its own before a run with a budget in that unit.

    Raises:
        UnmetNeedError: a gradient has no flops that we know.
    """
    seen = replay(engine, 0, period)
    if seen.meter is None:
        raise UnmetNeedError("a budget of gradient-equivalents needs the flops of a gradient, and this task has none")
    return seen


def cache_folder() -> Path:
    """Where compiled programs are kept: ``$CURVEBENCH_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("CURVEBENCH_CACHE") or user_cache_path("curvebench"))


def _import_engine(framework: str) -> Any:
    try:
        return importlib.import_module(f"curvebench.run.engine_{framework}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in LIBRARIES:
            raise
        raise MissingPackageError(error.name, framework, f"framework = {framework}") from error


def _engine(module: Any, spec: RunSpec) -> Any:
    return getattr(module, {"torch": "TorchEngine", "jax": "JaxEngine"}[spec.framework])


def _status(error: BaseException, framework: str) -> Status:
    if isinstance(error, MemoryError):
        return Status.OUT_OF_MEMORY
    module = sys.modules.get(f"curvebench.run.engine_{framework}")
    return Status.OUT_OF_MEMORY if module is not None and module.is_out_of_memory(error) else Status.CRASHED


def _sentence(error: BaseException) -> str:
    """The first lines of what was raised; curvebench's own errors are sentences already."""
    text = str(error).strip().splitlines() or [""]
    if any("Traceback (most recent call last)" in line for line in text):  # what a host callback raised, told by XLA
        text = [line for line in text if re.match(r"[A-Za-z_][\w.]*: ", line)][-1:] or text
    message = " ".join(text[:3])[:500]
    return message if isinstance(error, CurvebenchError) else f"{type(error).__name__}: {message}"


def _finite(values: list[Any]) -> list[Any]:
    """NaN and infinity become null: JSON has neither."""
    return [v if v is not None and math.isfinite(v) else None for v in values]
