"""Curvature-free and window methods in jax: ten steps are torch's ten steps, in float64 on shared draws and batches."""

from __future__ import annotations

import functools
from typing import Any

import jax
import pytest
import tiny
from tiny import engine, parameters, run_spec

from curvebench.tasks.problem import Problem

RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("mfac", "mlp", {"lr": 1e-2, "window": 4, "damping": 1e-2, "momentum": 0.5, "weight_decay": 0.1}),
    ("mfac", "conv", {"lr": 1e-2, "window": 3, "damping": 1e-2, "formula": "official"}),
    ("zo-sgd", "mlp", {"lr": 1e-2, "queries": 3, "momentum": 0.5, "weight_decay": 0.1}),
    ("zo-sgd", "mlp", {"lr": 1e-2, "queries": 3, "central": True, "law": "sphere"}),
    ("zo-sign", "mlp", {"lr": 1e-2, "queries": 2, "law": "tensor-sphere", "weight_decay": 0.1}),
    ("zo-adam", "mlp", {"lr": 1e-2, "queries": 2, "beta1": 0.6, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    ("zo-cge", "mlp", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1}),
    ("zo-cge", "conv", {"lr": 0.1, "central": True}),
    ("mezo-momentum", "mlp", {"lr": 1e-2, "momentum": 0.5, "weight_decay": 0.1}),
    ("hizoo", "mlp", {"lr": 1e-2, "eps": 1e-2, "alpha": 1e-3, "weight_decay": 0.1}),
    ("forward-gradient", "mlp", {"lr": 1e-2, "queries": 2, "momentum": 0.5, "weight_decay": 0.1}),
]  # fmt: skip


@functools.cache
def problem(name: str) -> Problem:
    return tiny.mlp(0.1, batch=4) if name == "mlp" else tiny.conv(0.1)


@pytest.mark.parametrize(("method", "task", "given"), RUNS)
def test_ten_steps_of_torch_are_ten_steps_of_jax(method: str, task: str, given: dict[str, Any]) -> None:
    with jax.numpy_dtype_promotion("strict"):
        pair = [
            engine(run_spec(method, framework=framework, draws="reference", seed_block=2, **given), problem(task))
            for framework in tiny.FRAMEWORKS
        ]
    start = parameters(pair[0])
    for step in range(10):
        for running in pair:
            running.step(step, float("inf"))
        left, right = (parameters(running) for running in pair)
        assert tiny.relative(left, right) < 1e-8, f"after step {step + 1}"
    assert tiny.relative(left, start) > 1e-3, "they went somewhere"
    assert pair[0].counts() == pair[1].counts()
    assert sum(pair[0].state_bytes().values()) == sum(pair[1].state_bytes().values())
