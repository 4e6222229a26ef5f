"""One method on one task in torch."""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from curvebench.cards import MethodCard
from curvebench.clock import Clock, EventClock
from curvebench.errors import DeviceError
from curvebench.methods.adapter_torch import TorchMethod
from curvebench.methods.scheduled import multipliers
from curvebench.oracle.torch import BudgetExhausted, TorchOracle
from curvebench.oracle.work import Work
from curvebench.oracle.work_torch import WorkCounter
from curvebench.run.loop import StepInterrupted
from curvebench.run.memory import host_step_peak
from curvebench.spec import Query, RunSpec, seed
from curvebench.tasks.problem import Evaluation, Problem
from curvebench.tasks.runtime_torch import TorchTask
from curvebench.types import Json

LONGEST = 15.0
"""Seconds after which a step that no clock sees (its work, its memory) is given up."""


class TorchEngine:
    """The engine of :func:`curvebench.run.loop.train` in torch.

    Args:
        spec: the run.
        problem: the task at this seed block.
        method: the method's card.
        threads: intra-op threads.

    Raises:
        DeviceError: the device is not on this machine.
    """

    def __init__(self, spec: RunSpec, problem: Problem, method: MethodCard, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = device(spec.device)
        needs = frozenset(Query(need) for need in spec.needs)
        self.task = TorchTask(problem, self.device, getattr(torch, spec.dtype))
        noise = seed("noise", spec.task, method.name, spec.seed_block)
        torch.manual_seed(noise)  # for third-party optimisers that draw from the global generator
        self.oracle = TorchOracle(self.task.objective, needs, noise, spec.draws)
        self.method = TorchMethod(method, spec.hyperparameters, self.oracle, multipliers(method, spec))
        self.self_reported = self.method.self_reported
        self.compilation: float | None = None
        self.cache: str | None = None
        if self.device.type == "cuda":
            self.clock: Clock = EventClock(
                torch.cuda.synchronize,
                lambda: torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
            )
        else:
            self.clock = Clock(_nothing_pending)
        self._guard = torch.no_grad if needs <= {Query.LOSS} else nullcontext

    def step(self, step: int, deadline: float) -> None:
        """One optimiser step, batch included."""
        oracle = self.oracle
        oracle.deadline = deadline
        oracle.begin_step(step, self.task.batch(step))
        guard: AbstractContextManager[object] = self._guard()  # a zeroth-order method runs with autograd off
        try:
            with guard:
                self.method.step()
        except BudgetExhausted as spent:
            raise StepInterrupted(str(spent)) from None
        oracle.end_step()

    def stop_at(self, calls: int | None) -> None:
        """Interrupt a step that has asked so many queries in all."""
        self.oracle.most_calls = calls

    @torch.no_grad()
    def loss_seconds(self) -> float:
        """Seconds of one loss on the first batch, uncounted, in evaluation mode: no state changes."""
        objective, (inputs, targets) = self.oracle.objective, self.task.batch(0)
        objective.module.eval()
        try:
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                float(objective.criterion(objective.module(inputs), targets))
            return time.perf_counter() - began
        finally:
            objective.module.train()

    def evaluate(self) -> Evaluation:
        """Evaluate, and wait for it."""
        with self.method.evaluating():
            seen = self.task.evaluate()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return seen

    def scores(self) -> dict[str, float]:
        """The task's further metrics where the method is to be evaluated."""
        with self.method.evaluating():
            return self.task.scores()

    def counts(self) -> list[int]:
        """The ledger so far."""
        return list(self.oracle.counts)

    def uncounted(self) -> tuple[str, ...]:
        """Columns of the ledger that are not known for this method."""
        return self.method.uncounted()

    def state_bytes(self) -> dict[str, int]:
        """Bytes of optimiser state by kind."""
        return self.method.state_bytes()

    def notes(self) -> list[str]:
        """What the optimiser and the oracle have to say about the run, such as skipped steps."""
        return [*self.method.notes(), *self.oracle.notes()]

    def gradient_work(self, step: int) -> Work:
        """The work of one gradient on the batch of ``step``, not counted."""
        oracle = TorchOracle(self.oracle.objective, {Query.GRADIENT})
        counter = WorkCounter()
        with counter:
            oracle.begin_step(step, self.task.batch(step))
            oracle.at().gradient()
        return counter.work

    def step_work(self, step: int) -> Work:
        """Make ``step`` and return its work."""
        counter = WorkCounter()
        with counter:
            self.step(step, time.perf_counter() + LONGEST)
        return counter.work

    def step_peak(self, step: int) -> tuple[int | None, str]:
        """Make ``step`` and return the peak of its memory above what stands between steps, and how it was seen."""
        if self.device.type != "cuda":
            return host_step_peak(lambda: self.step(step, time.perf_counter() + LONGEST))
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.step(step, time.perf_counter() + LONGEST)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(self.device) - before, "torch.cuda.max_memory_allocated"

    def compiled_memory(self) -> Json | None:
        """Nothing is compiled."""
        return None

    def snapshot(self) -> dict[str, Any]:
        """A copy of everything that the next step depends on: parameters, buffers, optimiser state."""
        return copy.deepcopy({"module": self.oracle.objective.module.state_dict(), "method": self.method.state_dict()})

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Continue from a :meth:`snapshot`, of another engine of the same run too."""
        content = copy.deepcopy(snapshot)
        self.oracle.objective.module.load_state_dict(content["module"])
        self.method.load_state_dict(content["method"])


def device(name: str) -> torch.device:
    """The torch device ``cpu`` or ``cuda[:i]``.

    Raises:
        DeviceError: it is not on this machine.
    """
    kind, _, index = name.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise DeviceError(f"device = {name}: torch {torch.__version__} sees {count or 'no'} CUDA devices; use cpu")
    return torch.device(name)


def _nothing_pending() -> None:
    """CPU operators of torch return when they are done: there is nothing to wait for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed to allocate."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
