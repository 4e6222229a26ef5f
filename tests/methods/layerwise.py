"""Layer-wise methods in both frameworks: one run of each beside the other, and jax's transformations by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tiny

from curvebench.oracle import ledger
from curvebench.oracle.jax import JaxOracle, Objective
from curvebench.oracle.layers_jax import Layers, find_layers
from curvebench.spec import Query
from curvebench.tasks.problem import Problem

NEEDS = frozenset({Query.GRADIENT, Query.LAYER_STATISTICS})


@functools.cache
def problem(name: str) -> Problem:
    return {"mlp": lambda: tiny.mlp(0.1, batch=4), "norm": tiny.norm}.get(name, lambda: tiny.PROBLEMS[name](0.1))()


def engine(method: str, task: str, framework: str = "jax", **given: Any) -> Any:
    return tiny.engine(tiny.run_spec(method, framework=framework, draws="reference", seed_block=2, **given),
                       problem(task))  # fmt: skip


def counts(running: Any) -> dict[str, int]:
    return {name: n for name, n in ledger.as_dict(running.counts()).items() if n}


def agree(
    method: str, task: str, given: dict[str, Any], bound: float, steps: int = 10, *, state: bool = True
) -> tuple[Any, Any, int]:
    """Run both, compare after every step; the engines and the size of a batch."""
    pair = [engine(method, task, framework, **given) for framework in tiny.FRAMEWORKS]
    start = tiny.parameters(pair[0])
    for step in range(steps):
        for running in pair:
            running.step(step, float("inf"))
        left, right = (tiny.parameters(running) for running in pair)
        assert tiny.relative(left, right) < bound, f"after step {step + 1}"
    assert tiny.relative(left, start) > 1e-3, "they went somewhere"
    assert pair[0].counts() == pair[1].counts()
    assert pair[0].state_bytes() == pair[1].state_bytes() or not state
    return pair[0], pair[1], problem(task).batch or len(problem(task).train)


def found(apply: Callable[..., Any], params: Any, x: Any) -> Layers:
    return find_layers(apply, params, x)


def stepper(tx: Any, apply: Callable[..., Any], criterion: Callable[..., Any], likelihood: str = "gaussian") -> Any:
    """A jitted ``(params, state, batch) -> (updates, state)``."""
    objective = Objective(lambda p, buffers, x, tap: (apply(p, x, tap or _through), {}), criterion, likelihood)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        oracle = JaxOracle(objective, NEEDS, batch, np.int32(0), jax.random.key(0))
        return tx.update(None, state, params, oracle=oracle)

    return step


def _through(name: str, x: Any, y: Any, geometry: Any = None) -> Any:
    return y


def matrix(gradient: dict[str, Any], layer: str) -> np.ndarray:
    """``[W, b]`` of a layer out of a flat dict."""
    prefix = f"{layer}." if layer else ""
    W = np.asarray(gradient[f"{prefix}weight"]).reshape(len(gradient[f"{prefix}weight"]), -1)
    bias = gradient.get(f"{prefix}bias")
    return W if bias is None else np.concatenate([W, np.asarray(bias)[:, None]], 1)
