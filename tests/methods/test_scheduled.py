"""A schedule composes with every method that has a learning rate, in both frameworks, and says so where it does not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny

from curvebench import cards
from curvebench.methods.scheduled import multipliers, note
from curvebench.tasks import toy
from curvebench.tasks.problem import Problem

STEPS = 4
HALF = "multistep:at=0.01,factor=0.5"
"""Half the rate from the first step on, over few steps."""
PAIRS = [
    (name, framework)
    for name in cards.names("methods")
    if cards.method(name).rates
    for framework in cards.method(name).frameworks
]
SAMPLE = ("prodigy",)
"""In jax every pair compiles three times: the ordinary tests take the one whose rate is part of its state."""


@pytest.fixture(scope="module")
def problem() -> Problem:
    return toy.classifier()


def after(problem: Problem, name: str, framework: str, schedule: str, **given: Any) -> dict[str, np.ndarray]:
    spec = replace(tiny.run_spec(name, problem.name, framework, steps=STEPS, **given), schedule=schedule)
    running = tiny.engine(spec, problem)
    for step in range(STEPS):
        running.step(step, math.inf)
    found = tiny.parameters(running)
    assert set(found) == set(problem.parameters)
    return found


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        pytest.param(*pair, marks=[pytest.mark.nightly] if pair[1] == "jax" and pair[0] not in SAMPLE else [])
        for pair in PAIRS
    ],
)
def test_half_the_rate_by_schedule_is_half_the_rate(problem: Problem, name: str, framework: str) -> None:
    card = cards.method(name)
    defaults = dict(card.resolve({}))
    halved = {rate: float(defaults[rate]) / 2 for rate in card.rates}
    ours = after(problem, name, framework, HALF)
    wanted = after(problem, name, framework, "constant", **halved)
    whole = after(problem, name, framework, "constant")
    for key, value in ours.items():
        np.testing.assert_allclose(value, wanted[key], rtol=1e-9, atol=1e-13, err_msg=f"{name} {framework} {key}")
    moved = any(not np.array_equal(whole[key], wanted[key]) for key in whole)
    assert moved == any(not np.array_equal(whole[key], ours[key]) for key in whole)


def test_both_frameworks_make_the_same_steps(problem: Problem) -> None:
    for schedule in ("linear:warmup=0.5", "cosine"):
        ours, theirs = (after(problem, "momentum", framework, schedule) for framework in ("torch", "jax"))
        plain = after(problem, "momentum", "torch", "constant")
        for key, value in ours.items():
            np.testing.assert_allclose(value, theirs[key], rtol=1e-10, atol=1e-12)
            assert not np.array_equal(value, plain[key])


def test_the_rates_are_the_same_numbers_and_the_last_one_holds_on(problem: Problem) -> None:
    spec = replace(tiny.run_spec("sgd", problem.name, "torch", steps=2, lr=0.3), schedule="linear")
    running = tiny.engine(spec, problem)
    seen = []
    for step in range(4):
        running.step(step, math.inf)
        seen.append(running.method.optimizer.param_groups[0]["lr"])
    assert seen == [0.3, 0.15, 0.15, 0.15]
    in_jax = tiny.engine(replace(spec, framework="jax"), problem)
    np.testing.assert_array_equal(np.asarray(in_jax._rates)[:, 0], [0.3, 0.15])


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_restored_run_goes_on_in_the_schedule(problem: Problem, framework: str) -> None:
    spec = replace(tiny.run_spec("adam", problem.name, framework, steps=STEPS), schedule="cosine")
    first, second = tiny.engine(spec, problem), tiny.engine(spec, problem)
    first.step(0, math.inf)
    first.step(1, math.inf)
    second.restore(first.snapshot())
    for running in (first, second):
        for step in (2, 3):
            running.step(step, math.inf)
    for key, value in tiny.parameters(first).items():
        np.testing.assert_array_equal(value, tiny.parameters(second)[key])


def test_what_has_no_rate_ignores_it_and_the_record_says_so(problem: Problem) -> None:
    for name, why in (
        ("levenberg-marquardt", "the method has no learning rate"),
        ("lbfgs", "a line search chooses the length of each step"),
        ("schedule-free", "its average takes the place of a schedule"),
    ):
        spec = replace(tiny.run_spec(name, problem.name, "torch", steps=10), schedule="cosine")
        assert multipliers(cards.method(name), spec) == ()
        assert note(cards.method(name), spec) == [f"learning-rate schedule (cosine to 0 at step 10) not applied: {why}"]
    spec = replace(tiny.run_spec("muon", problem.name, "torch", steps=10), schedule="multistep:at=0.5,warmup=0.2")
    assert note(cards.method("muon"), spec) == [
        "learning rate (lr, adamw_lr) times 0.1 at steps 5 of 10, 2 steps of warm-up"
    ]
    assert note(cards.method("muon"), replace(spec, schedule="constant")) == []
