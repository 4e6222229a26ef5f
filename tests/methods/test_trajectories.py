"""The same name is the same algorithm: ten steps of torch and jax agree in float64 on shared probes and batches."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import card, engine, parameters, run_spec

from curvebench import cards, tasks
from curvebench.tasks.problem import Problem

STEPS = 10
FIRST_ORDER = [card.name for card in cards.load_all("methods")
               if card.twin and card.family == "first-order" and len(card.frameworks) == 2]  # fmt: skip
TWINS = sorted({*FIRST_ORDER, "adahessian", "mezo", "sophia-h"})
RUNS: list[tuple[str, str, dict[str, Any]]] = [
    # the step sizes move the parameters by a good part of their size in ten steps
    ("sgd", "least-squares", {"lr": 1.0}),
    ("sgd", "mlp", {"lr": 0.5}),
    ("momentum", "least-squares", {"lr": 0.3}),
    ("momentum", "mlp", {"lr": 0.3, "momentum": 0.7}),
    ("nesterov", "logistic-breast-cancer", {"lr": 0.3}),
    ("nesterov", "mlp", {"lr": 0.3, "momentum": 0.7}),
    ("adam", "least-squares", {"lr": 0.1}),
    ("adam", "mlp", {"lr": 0.1, "beta1": 0.5, "beta2": 0.9, "eps": 1e-3}),
    ("adamw", "logistic-breast-cancer", {"lr": 0.1, "weight_decay": 0.1}),
    ("adamw", "mlp", {"lr": 0.1, "weight_decay": 0.5}),
    ("adahessian", "logistic-breast-cancer", {"lr": 0.1}),
    ("adahessian", "conv", {"lr": 0.05, "averaging": "conv", "weight_decay": 0.1}),
    ("adahessian", "conv", {"lr": 0.05, "averaging": "row", "hessian_power": 0.5}),
    ("adahessian", "mlp", {"lr": 0.05, "averaging": "none", "hessian_every": 2}),
    ("adagrad", "mlp", {"lr": 0.1, "initial_accumulator": 1e-2}),
    ("rmsprop", "mlp", {"lr": 0.05, "decay": 0.8, "eps": 1e-3}),
    ("nadam", "mlp", {"lr": 0.1, "beta1": 0.6, "beta2": 0.9, "eps": 1e-3}),
    ("lamb", "conv", {"lr": 0.1, "beta1": 0.6, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.5}),
    ("lion", "mlp", {"lr": 0.1, "beta1": 0.6, "beta2": 0.8, "weight_decay": 0.5}),
    ("schedule-free", "mlp", {"lr": 0.1, "beta1": 0.6, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.5}),
    ("prodigy", "mlp", {"lr": 0.7, "d0": 1e-2, "d_coef": 2.0, "beta1": 0.6, "beta2": 0.9, "eps": 1e-3,
                        "weight_decay": 0.1}),
    ("sophia-h", "least-squares", {"lr": 0.1, "gamma": 10.0, "hessian_every": 3}),
    ("sophia-h", "mlp", {"lr": 0.1, "beta1": 0.7, "gamma": 1.0, "beta2": 0.5, "eps": 1e-3, "weight_decay": 0.5,
                         "hessian_every": 1}),
    ("mezo", "least-squares", {"lr": 1e-2}),
    ("mezo", "mlp", {"lr": 1e-2, "eps": 1e-2, "weight_decay": 0.1}),
]  # fmt: skip


MORE: dict[str, dict[str, Any]] = {
    "adahessian": {"hessian_every": 2},
    "sophia-h": {"hessian_every": 2, "gamma": 10.0, "beta2": 0.3},  # few coordinates are clipped
    "prodigy": {"lr": 1.0, "d0": 1e-2},
    "lion": {"lr": 0.5, "beta1": 0.99},  # gradients change their signs within three steps
}


@functools.cache
def problem(name: str) -> Problem:
    if name == "mlp":
        return tiny.mlp(0.1, batch=4)
    if name == "conv":
        return tiny.conv(0.1)
    return tasks.load(cards.task(name), "quick", 2)


def test_every_first_order_card_that_claims_a_twin_is_run_here() -> None:
    assert {"adam", "adamw", "momentum", "nesterov", "sgd"} <= set(FIRST_ORDER)
    assert sorted({method for method, _, _ in RUNS}) == TWINS


@pytest.mark.parametrize(("method", "task", "given"), RUNS)
def test_ten_steps_of_torch_are_ten_steps_of_jax(method: str, task: str, given: dict[str, Any]) -> None:
    at = problem(task)
    pair = [
        engine(run_spec(method, framework=framework, draws="reference", seed_block=2, **given), at)
        for framework in tiny.FRAMEWORKS
    ]
    start = parameters(pair[0])
    assert tiny.relative(start, parameters(pair[1])) == 0, "the same bits"
    for step in range(STEPS):
        for running in pair:
            running.step(step, float("inf"))
        left, right = (parameters(running) for running in pair)
        assert tiny.relative(left, right) < 1e-9, f"after step {step + 1}"
    assert tiny.relative(left, start) > 1e-3, "they went somewhere"
    assert pair[0].counts() == pair[1].counts()
    one, other = (running.evaluate() for running in pair)
    assert one.loss == pytest.approx(other.loss, rel=1e-9)


def test_the_tuple_form_of_averaging_has_no_card_but_the_twins_agree_on_it_too() -> None:
    """Block sizes are for people who call the class: rule by rule they are compared in test_adahessian."""
    assert card("adahessian").hyperparameters["averaging"].choices == ("conv", "row", "none")


@pytest.mark.parametrize("method", TWINS)
def test_both_twins_take_every_hyperparameter_from_the_card(method: str) -> None:
    """Each hyperparameter, moved alone, moves the second or third step in both frameworks by the same amount.

    Library defaults differ (adamw's decay, for one), so nothing may be left to them.
    """
    shipped = card(method)
    base: dict[str, Any] = {"lr": 0.05, **MORE.get(method, {})}
    moved: dict[str, Any] = {"lr": 0.1, "momentum": 0.5, "beta1": 0.5, "beta2": 0.5, "eps": 0.5, "weight_decay": 0.5,
                             "hessian_power": 0.5, "averaging": "row", "hessian_every": 1, "initial_accumulator": 0.1,
                             "decay": 0.5, "gamma": 0.5, "d0": 0.1, "d_coef": 100.0}  # fmt: skip
    assert set(shipped.hyperparameters) <= set(moved)

    @functools.cache
    def end(framework: str, name: str) -> Any:
        given = base if name == "" else {**base, name: moved[name]}
        running = engine(run_spec(method, framework=framework, draws="reference", **given), problem("mlp"))
        for step in range(3):
            running.step(step, float("inf"))
        return tiny.flat(parameters(running))

    for name in shipped.hyperparameters:
        torch_moved = end("torch", name) - end("torch", "")
        assert np.abs(torch_moved).max() > 1e-6, f"{name} does something"
        if not any(run == method and name in given for run, _, given in RUNS):  # those are compared there, to 1e-9
            assert tiny.relative(torch_moved, end("jax", name) - end("jax", "")) < 1e-6
