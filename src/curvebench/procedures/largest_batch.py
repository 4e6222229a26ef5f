"""The largest batch that fits into memory: a method's steps on a task at doubled, then bisected batch sizes.

Every size is tried in a process of its own, so that a failure costs nothing but that process. On the CPU a stated limit
is set by the kernel (``RLIMIT_AS``): bytes of address space above what the process holds before its data and
parameters, which is a little stricter than resident memory. On CUDA the device's own memory is the limit, or the share
of it that ``torch.cuda.set_per_process_memory_fraction`` allows.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench import tasks
from curvebench.errors import CurvebenchError
from curvebench.run.execute import prepare
from curvebench.schedule import jobs_of, server
from curvebench.schedule.cores import available
from curvebench.schedule.isolation import Isolation, Outcome
from curvebench.schedule.study import own_modules
from curvebench.spec import RunSpec, Status
from curvebench.tasks.problem import BatchOrder, Problem
from curvebench.types import Json

ORDER = "CURVEBENCH_BATCH_PROBE"
MOST_STEPS = 12
"""Steps of a trial at most: one period of the method and one more, for state appears in the first ones."""
LARGEST = 1 << 24
"""Samples beyond which nobody looks."""


@dataclass(frozen=True)
class Trial:
    """One size that was tried.

    Args:
        batch: samples per step.
        fits: whether its steps ended.
        reason: what was seen: the steps, or what ran out.
    """

    batch: int
    fits: bool
    reason: str


@dataclass(frozen=True)
class Found:
    """The answer.

    Args:
        batch: the largest size that fits, 0 if not even one sample does.
        above: the smallest that was seen not to fit, None if all sizes up to the most do.
        limit: bytes that were allowed, None: what the device has.
        trials: in the order in which they were made.
    """

    batch: int
    above: int | None
    limit: int | None
    trials: tuple[Trial, ...]


class _Repeated(BatchOrder):
    """Batches of any size: the samples in order, from the start again when they are used up."""

    def __init__(self, n: int, batch: int) -> None:
        super().__init__(n, 1, 0)
        self.size, self.full = batch, False

    def __getitem__(self, step: int) -> npt.NDArray[np.int64]:
        return np.arange(step * self.size, (step + 1) * self.size) % self._n


class _Enlarged(Problem):
    """A problem whose batches may be larger than its training set: what they need depends on their shape alone."""

    def order(self) -> BatchOrder:
        """Batches with repeated samples."""
        assert self.batch is not None
        return _Repeated(len(self.train), self.batch)


def search(try_one: Callable[[int], Trial], start: int, most: int = LARGEST, precision: float = 0.01) -> Found:
    """Double from ``start`` while it fits, halve while it does not, then bisect between the two.

    Args:
        try_one: tries a size.
        start: the first size.
        most: the largest that is tried.
        precision: ends once what fits and what does not are so close, as a share of the first; 0: neighbours.
    """
    trials: list[Trial] = []

    def fits(batch: int) -> bool:
        trials.append(try_one(batch))
        return trials[-1].fits

    low, high, batch = 0, None, min(max(start, 1), most)
    while high is None and low < most:
        if fits(batch):
            low, batch = batch, min(2 * batch, most)
        else:
            high = batch
    while high is not None and high > 1 and low == 0:
        batch = high // 2
        if fits(batch):
            low = batch
        else:
            high = batch
    while high is not None and high - low > max(1, math.floor(precision * low)):
        batch = (low + high) // 2
        if fits(batch):
            low = batch
        else:
            high = batch
    return Found(low, high, None, tuple(trials))


def largest_batch(
    spec: RunSpec,
    limit: int | None = None,
    *,
    most: int = LARGEST,
    precision: float = 0.01,
    timeout: float = 600.0,
    told: Callable[[Trial], None] = lambda _: None,
) -> Found:
    """Search for the largest batch whose steps of a run fit into memory.

    Args:
        spec: the run; its budget is not used.
        limit: bytes that are allowed; None: on the CPU what is free now, on CUDA the device's.
        most: the largest size that is tried.
        precision: see :func:`search`.
        timeout: seconds for one size.
        told: called with each trial.

    Raises:
        CurvebenchError: the limit cannot be set there, or a size fails for another reason than memory.
    """
    _, task = prepare(spec)
    if limit is not None and limit <= 0:
        raise CurvebenchError(f"--memory {limit}: must be a positive number of bytes")
    if limit is not None and spec.framework == "jax" and spec.device != "cpu":
        raise CurvebenchError("--memory: cannot be set in jax on a GPU: leave it out to search the whole device")
    if limit is None and spec.device == "cpu":
        limit = free_memory()
    scale = task.at(spec.scale)
    start = 32 if scale.batch == "full" else int(scale.batch)
    jobs = jobs_of([spec])
    isolation = Isolation(f"{__name__}:probe", server.preload_for([spec.framework], __name__, *own_modules(jobs)))

    def try_one(batch: int) -> Trial:
        os.environ[ORDER] = json.dumps({"batch": batch, "limit": limit})
        try:
            isolation.start(spec, available(), timeout)
            outcomes: list[Outcome] = []
            while not outcomes:
                outcomes = isolation.wait(60.0)
        finally:
            del os.environ[ORDER]
        trial = judged(batch, outcomes[0], limited=limit is not None and spec.device == "cpu")
        told(trial)
        return trial

    try:
        return replace(search(try_one, start, most, precision), limit=limit)
    finally:
        isolation.kill()


def judged(batch: int, outcome: Outcome, limited: bool) -> Trial:
    """What the end of a process says about a size.

    Under a limit of the kernel's a library that cannot allocate may end its process by a signal.

    Raises:
        CurvebenchError: it failed, and not for want of memory.
    """
    if outcome.record is not None:
        return Trial(batch, bool(outcome.record["fits"]), str(outcome.record["reason"]))
    if outcome.status is Status.OUT_OF_MEMORY or (limited and outcome.reason.startswith("the process died of SIG")):
        return Trial(batch, False, outcome.reason)
    raise CurvebenchError(f"batch {batch}: {outcome.reason}\n{outcome.output}".rstrip())


def probe(spec: RunSpec) -> Json:
    """In the child: set the limit, build the run at the ordered batch size, make its steps.

    Raises:
        Exception: whatever the method raises that is not want of memory.
    """
    order = json.loads(os.environ[ORDER])
    batch, limit = int(order["batch"]), order["limit"]
    method, task = prepare(spec)
    module = importlib.import_module(f"curvebench.run.engine_{spec.framework}")
    device = module.device(spec.device)
    if limit is not None:
        _limit(spec, device, int(limit))
    steps = min(method.refresh_every(spec.hyperparameters), MOST_STEPS - 1) + 1
    try:
        problem = enlarged(tasks.load(task, spec.scale, spec.seed_block), batch)
        kind = {"torch": "TorchEngine", "jax": "JaxEngine"}[spec.framework]
        engine = getattr(module, kind)(spec, problem, method, len(available()))
        engine.evaluate()
        for step in range(steps):
            engine.step(step, math.inf)
        engine.evaluate()  # waits for the device
    except (MemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, MemoryError) and not module.is_out_of_memory(error):
            raise
        return {"fits": False, "reason": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
    return {"fits": True, "reason": f"{steps} steps"}


def enlarged(problem: Problem, batch: int) -> Problem:
    """The problem with batches of another size, which may be larger than the training set."""
    return _Enlarged(**{**vars(problem), "batch": batch})


def _limit(spec: RunSpec, device: Any, limit: int) -> None:
    if spec.device == "cpu":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (held + limit, hard))
        return
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)


def free_memory() -> int:
    """Bytes that this machine, or the control group of this process, can still give.

    Raises:
        CurvebenchError: the kernel does not say.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        raise CurvebenchError("--memory: needed here: this system does not say how much memory is free") from None
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if most != "max":
            free = min(free, max(int(most) - int(used), 0))
    except (OSError, ValueError):
        pass  # no control group of version 2
    return free
