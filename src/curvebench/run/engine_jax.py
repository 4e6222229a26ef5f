"""One method on one task in jax: the whole step is one jitted function with a donated carry."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, monitoring

from curvebench.cards import MethodCard
from curvebench.clock import Clock
from curvebench.errors import DeviceError
from curvebench.methods.adapter_jax import JaxMethod, state_bytes
from curvebench.methods.scheduled import multipliers
from curvebench.oracle import ledger as L
from curvebench.oracle.capture_jax import Tap
from curvebench.oracle.fisher_jax import refuse
from curvebench.oracle.jax import JaxOracle
from curvebench.oracle.layers_jax import Layers, find_layers
from curvebench.oracle.streams_jax import typed_key
from curvebench.oracle.work import Work
from curvebench.oracle.work_jax import measure
from curvebench.run.memory import host_step_peak
from curvebench.spec import Query, RunSpec, seed
from curvebench.tasks.problem import Evaluation, Problem
from curvebench.tasks.runtime_jax import JaxTask
from curvebench.types import Json

_RADIX = 20
"""The carried ledger is two int32 words per column, the low one of 20 bits: exact to 2^51, free of x64."""


class JaxEngine:
    """The engine of :func:`curvebench.run.loop.train` in jax.

    Args:
        spec: the run.
        problem: the task at this seed block.
        method: the method's card.
        threads: cores of this process; XLA sizes its pool by affinity, so it is only recorded.

    Raises:
        DeviceError: the device is not on this machine.
    """

    def __init__(self, spec: RunSpec, problem: Problem, method: MethodCard, threads: int) -> None:
        del threads
        jax.config.update("jax_enable_x64", spec.dtype == "float64")
        self.device = device(spec.device)
        needs = frozenset(Query(need) for need in spec.needs)
        self.task = JaxTask(problem, self.device, spec.dtype)
        self._fisher = str(dict(spec.hyperparameters).get("fisher", "empirical"))
        self.method = JaxMethod(method, spec.hyperparameters, multipliers(method, spec), self._layers)
        self.self_reported = [str(Query.LOSS_FUNCTION)] if Query.LOSS_FUNCTION in needs else []
        noise = seed("noise", spec.task, method.name, spec.seed_block)
        self._foreign, self._batch_size = 0, problem.order().size
        self._counts = [0] * len(L.COLUMNS)
        self._data = self.task.data
        self._key = jax.device_put(np.array([noise >> 32, noise & 0xFFFFFFFF], np.uint32), self.device)
        rates = self.method.rates(spec.dtype)
        self._rates = None if rates is None else jax.device_put(rates, self.device)
        task, kernel = self.task, self.method

        names = tuple(problem.parameters)

        def tick() -> None:
            self._foreign += 1

        def step(carry: Any, data: Any, rows: Array, key: Array, rates: Array | None) -> Any:
            params, buffers, state, totals, index = carry
            oracle = JaxOracle(task.objective, needs, task.batch(data, rows), index,
                               jax.random.fold_in(typed_key(key), index), buffers, names, np.dtype(spec.dtype),
                               noise, spec.draws, tick)  # fmt: skip
            new, state = kernel.step(params, state, oracle, rates)
            if buffers:
                statistics = oracle.batch_statistics
                if statistics is None:  # every forward ran inside a loop: one uncounted forward supplies them
                    statistics = oracle.evaluate(params, oracle.batch)[1][1]
                buffers = task.commit(buffers, statistics)
            return new, buffers, state, accumulate(totals, oracle.counts()), index + 1

        def gradient(params: Any, buffers: Any, data: Any, rows: Array, key: Array) -> Any:
            oracle = JaxOracle(task.objective, frozenset({Query.GRADIENT}), task.batch(data, rows), jnp.int32(0),
                               typed_key(key), buffers, names, np.dtype(spec.dtype))  # fmt: skip
            return oracle.at(params).gradient()

        def loss(params: Any, buffers: Any, data: Any, rows: Array, key: Array) -> Array:
            oracle = JaxOracle(task.objective, frozenset({Query.LOSS}), task.batch(data, rows), jnp.int32(0),
                               typed_key(key), buffers, names, np.dtype(spec.dtype))  # fmt: skip
            return oracle.loss(params)

        self._gradient, self._traced, self._loss = gradient, step, loss
        self._step_work: Callable[..., Work] | None = None
        init = jax.jit(lambda params: jax.tree.map(jnp.copy, kernel.init(params)))
        state = init(self.task.params)  # copies: a state that aliases the parameters could not be donated with them
        zero = jax.device_put(np.zeros((2, len(L.COLUMNS)), np.int32), self.device)
        self.carry = (self.task.params, self.task.buffers, state, zero, jax.device_put(np.int32(0), self.device))
        before = _cache_events()
        began = time.perf_counter()
        jitted = jax.jit(step, donate_argnums=0)
        self._step = jitted.lower(self.carry, self._data, self.task.rows(0), self._key, self._rates).compile()
        self.compilation: float | None = time.perf_counter() - began
        hits, misses = (b - a for a, b in zip(before, _cache_events(), strict=True))
        self.cache: str | None = "miss" if misses else "hit" if hits else None
        self.clock = Clock(self._wait)

    def step(self, step: int, deadline: float) -> None:
        """One optimiser step, the batch's gather included; a jitted step cannot be interrupted."""
        self.carry = self._step(self.carry, self._data, self.task.rows(step), self._key, self._rates)

    def stop_at(self, calls: int | None) -> None:
        """A jitted step cannot be interrupted."""

    def loss_seconds(self) -> float:
        """Seconds of one loss on the first batch, uncounted, without its compilation."""
        run = jax.jit(self._loss)
        for _ in range(2):  # the first one compiles
            began = time.perf_counter()
            run(self.carry[0], self.carry[1], self._data, self.task.rows(0), self._key).block_until_ready()
        return time.perf_counter() - began

    def evaluate(self) -> Evaluation:
        """Evaluate; the values are fetched, so it is finished."""
        params = self.method.evaluated(self.carry[0], self.carry[2])
        return self.task.evaluate(params, self.carry[1])

    def scores(self) -> dict[str, float]:
        """The task's further metrics where the method is to be evaluated."""
        return self.task.scores(self.method.evaluated(self.carry[0], self.carry[2]), self.carry[1])

    def counts(self) -> list[int]:
        """The ledger so far; after a step that raised (and lost its donated carry), as it was last read."""
        try:
            low, high = np.asarray(self.carry[3]).astype(object)
        except RuntimeError:
            return self._counts
        self._counts = [int(b) * (1 << _RADIX) + int(a) for a, b in zip(low, high, strict=True)]
        if self.self_reported:
            jax.effects_barrier()
            self._counts[L.LOSS_FUNCTION] += self._foreign
            self._counts[L.SAMPLES] += self._foreign * self._batch_size
        return self._counts

    def uncounted(self) -> tuple[str, ...]:
        """Columns of the ledger that are not known for this method."""
        return self.method.uncounted(self.carry[2])

    def state_bytes(self) -> dict[str, int]:
        """Bytes of optimiser state by kind."""
        return state_bytes(self.carry[2])

    def notes(self) -> list[str]:
        """What the method has to say about the run, such as skipped steps."""
        try:
            return self.method.notes(self.carry[2], int(self.carry[4]))
        except RuntimeError:  # a step raised and lost its donated carry
            return []

    def _layers(self) -> Layers:
        """The layers of the task's model, found without computing anything.

        Raises:
            CurvebenchError: sampled or type-2 Fisher matrices of a criterion that is no mean of a likelihood's terms.
        """
        task = self.task
        inputs, _ = jax.eval_shape(task.batch, task.data, task.rows(0))

        def forward(params: Any, x: Array, tap: Tap | None) -> Any:
            return task.objective.apply(params, task.buffers, x, tap)

        if self._fisher != "empirical":
            outputs, _ = jax.eval_shape(lambda p, x: forward(p, x, None), task.params, inputs)
            _, targets = jax.jit(task.batch)(task.data, task.rows(0))
            refuse(task.objective.criterion, outputs, targets, task.objective.likelihood, self._fisher)
        return find_layers(forward, task.params, inputs)

    def gradient_work(self, step: int) -> Work:
        """The work of one gradient on the batch of ``step``, not counted."""
        args = (*self.carry[:2], self._data, self.task.rows(step), self._key)
        return measure(self._gradient, *args)(*args)

    def step_work(self, step: int) -> Work:
        """Make ``step`` and return its work."""
        args = (self.carry, self._data, self.task.rows(step), self._key, self._rates)
        if self._step_work is None:
            self._step_work = measure(self._traced, *args)
        work = self._step_work(*args)
        self.step(step, math.inf)
        return work

    def step_peak(self, step: int) -> tuple[int | None, str]:
        """Make ``step`` and return the peak of its memory above what stands between steps, and how it was seen."""
        if self.device.platform != "cpu":  # a device's high-water mark cannot be reset: the compiler's figure stands
            self.step(step, math.inf)
            return None, "not measurable: the device's high-water mark cannot be reset; see compiled"

        def run() -> None:
            self.step(step, math.inf)
            self._wait()

        return host_step_peak(run)

    def compiled_memory(self) -> Json | None:
        """The compiler's own account of the step, in bytes: what is read, written anew, and needed meanwhile."""
        found = self._step.memory_analysis()
        if found is None:
            return None
        return {
            "arguments": int(found.argument_size_in_bytes),
            "outputs": int(found.output_size_in_bytes),
            "aliased": int(found.alias_size_in_bytes),
            "temporary": int(found.temp_size_in_bytes),
        }

    def snapshot(self) -> Any:
        """A copy of everything that the next step depends on, as NumPy arrays."""
        return jax.tree.map(np.array, self.carry)

    def restore(self, snapshot: Any) -> None:
        """Continue from a :meth:`snapshot`, of another engine of the same run too."""
        self.carry = jax.tree.map(lambda leaf: jax.device_put(np.array(leaf), self.device), snapshot)

    def _wait(self) -> None:
        """All outputs of one executable become ready together; the smallest stands for the whole state."""
        self.carry[4].block_until_ready()


def accumulate(totals: Array, counts: Array) -> Array:
    """Add a step's counts ``[columns]`` to the carried two-word ledger ``[2, columns]``."""
    low = totals[0] + counts
    return jnp.stack([low & ((1 << _RADIX) - 1), totals[1] + (low >> _RADIX)])


def device(name: str) -> Any:
    """The jax device ``cpu`` or ``cuda[:i]``.

    Raises:
        DeviceError: it is not on this machine.
    """
    kind, _, index = name.partition(":")
    if kind == "cpu":
        jax.config.update("jax_platforms", "cpu")  # do not probe accelerators that are not asked for
        # Waiting for another thread's result costs 80 microseconds of wake-up a step; run on this one instead.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        found = jax.devices(kind)
    except RuntimeError:
        found = []
    if int(index or 0) >= len(found):
        raise DeviceError(f"device = {name}: jax {jax.__version__} sees {len(found) or 'no'} {kind} devices; use cpu")
    return found[int(index or 0)]


def use_cache(folder: Path) -> None:
    """Keep compiled programs in ``folder``, so that the seeds of a study compile once.

    A read-only or full folder costs only the reuse: jax warns and compiles.
    """
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # XLA's loader logs every mismatch of tuning flags at error level
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether XLA failed to allocate."""
    return "RESOURCE_EXHAUSTED" in str(error)


_EVENTS = {"/jax/compilation_cache/cache_hits": 0, "/jax/compilation_cache/cache_misses": 0}


def _listen(event: str, **_: Any) -> None:
    if event in _EVENTS:
        _EVENTS[event] += 1


def _cache_events() -> tuple[int, ...]:
    return tuple(_EVENTS.values())


monitoring.register_event_listener(_listen)
