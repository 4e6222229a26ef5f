"""The ledger of every shipped method against a counter that knows nothing of it, in both frameworks, under jit."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch
from tiny import engine, run_spec

from curvebench.oracle import ledger
from curvebench.oracle.jax import JaxOracle

SHIPPED = ("adahessian", "adam", "adamw", "lbfgs", "mezo", "momentum", "nesterov", "sgd", "lamb", "sophia-h")
# the others: conformance, which counts queries and bytes of every card
STEPS = 7
N, D = 4, 31  # samples of a mini-batch, parameters
GIVEN: dict[str, dict[str, Any]] = {"adahessian": {"hessian_every": 3}, "sophia-h": {"hessian_every": 3},
                                    "lbfgs": {"history": 3}}  # fmt: skip


def seen(running: Any) -> dict[str, int]:
    return {name: n for name, n in ledger.as_dict(running.counts()).items() if n}


def torch_run(method: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Counter[str]]:
    """Run in torch; what really happened is counted where it happens: in the criterion, in autograd, in the draws."""
    ran: Counter[str] = Counter()
    differentiate = torch.autograd.grad

    def grad(outputs: Any, inputs: Any, vectors: Any = None, **more: Any) -> Any:
        ran["backward" if vectors is None else "product"] += 1
        return differentiate(outputs, inputs, vectors, **more)

    normal = torch.Tensor.normal_
    random = torch.Tensor.random_

    def counted(fill: Any) -> Any:
        def draw(self: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
            ran["draws"] += self.numel()
            filled: torch.Tensor = fill(self, *args, **more)
            return filled

        return draw

    running = engine(run_spec(method, **GIVEN.get(method, {})), tiny.mlp(0.1, batch=N))
    criterion = running.oracle.objective.criterion

    def evaluated(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        ran["forward"] += 1
        ran["samples"] += len(targets)
        value: torch.Tensor = criterion(outputs, targets)
        return value

    running.oracle.objective = dataclasses.replace(running.oracle.objective, criterion=evaluated)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr(torch.Tensor, "normal_", counted(normal))
    monkeypatch.setattr(torch.Tensor, "random_", counted(random))
    for step in range(STEPS):
        running.step(step, float("inf"))
    return running, ran


def jax_run(method: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Counter[str]]:
    """Run in jax; callbacks from the compiled program count evaluations of the criterion and trees of probes."""
    ran: Counter[str] = Counter()

    def note(what: str, size: str, n: int) -> None:
        ran[what] += 1
        ran[size] += n

    made = JaxOracle.__init__

    def init(self: Any, objective: Any, *args: Any, **more: Any) -> None:
        def evaluated(outputs: Any, targets: Any) -> Any:
            jax.debug.callback(note, "forward", "samples", len(targets))
            return objective.criterion(outputs, targets)

        made(self, dataclasses.replace(objective, criterion=evaluated), *args, **more)

    probed = JaxOracle.probes

    def probes(self: Any, *args: Any) -> Any:
        jax.debug.callback(note, "probes", "draws", D)
        return probed(self, *args)

    walked = JaxOracle.walk

    def walk(self: Any, *args: Any) -> Any:
        jax.debug.callback(note, "walks", "draws", D)
        return walked(self, *args)

    monkeypatch.setattr(JaxOracle, "__init__", init)
    monkeypatch.setattr(JaxOracle, "probes", probes)
    monkeypatch.setattr(JaxOracle, "walk", walk)
    running = engine(run_spec(method, framework="jax", **GIVEN.get(method, {})), tiny.mlp(0.1, batch=N))
    for step in range(STEPS):
        running.step(step, float("inf"))
    running.counts()
    jax.effects_barrier()
    return running, ran


@functools.cache
def ran(framework: str, method: str) -> tuple[Any, Counter[str]]:
    """The engine after seven steps, and what was counted beside it."""
    with pytest.MonkeyPatch.context() as patch:
        return (torch_run if framework == "torch" else jax_run)(method, patch)


each = pytest.mark.parametrize("framework", tiny.FRAMEWORKS)
shipped = pytest.mark.parametrize("method", SHIPPED)


@each
@shipped
def test_the_ledger_is_what_really_happened(framework: str, method: str) -> None:
    running, happened = ran(framework, method)
    counts = seen(running)
    hvp = counts.get("hvp", 0)
    assert counts.get("loss", 0) + counts.get("gradient", 0) == happened["forward"]
    assert counts["samples"] == happened["samples"] + N * hvp
    assert counts.get("draws", 0) == happened["draws"]
    if framework == "torch":
        assert counts.get("gradient", 0) == happened["backward"]
        assert hvp == happened["product"]
    elif method in ("adahessian", "sophia-h"):
        assert hvp == happened["probes"], "the branch without curvature draws nothing and is not counted"
    check(method, counts)


def check(method: str, counts: dict[str, int]) -> None:
    """The totals that the algorithm prescribes."""
    if method in ("adahessian", "sophia-h"):
        assert counts == {"gradient": STEPS, "hvp": 3, "draws": 3 * D, "samples": N * (STEPS + 3)}
    elif method == "mezo":
        assert counts == {"loss": 2 * STEPS, "draws": 3 * D * STEPS, "samples": 2 * N * STEPS}
    elif method == "lbfgs":
        assert set(counts) == {"gradient", "samples"}
        assert counts["gradient"] >= 2 * STEPS, "one at the start and at least one in the line search of every step"
    else:
        assert counts == {"gradient": STEPS, "samples": N * STEPS}


@each
@shipped
def test_queries_per_step_are_those_of_the_cards_formula(framework: str, method: str) -> None:
    if method == "lbfgs":
        pytest.skip("its line search asks as often as it must: the card states the least")
    running, _ = ran(framework, method)
    card = tiny.card(method)
    expected = card.queries_per_step(card.resolve(GIVEN.get(method, {})), d=D, batch=N)
    counts = ledger.as_dict(running.counts())
    assert {q: counts[q] for q in expected} == {q: np.ceil(STEPS * n) for q, n in expected.items()}
    assert ledger.oracle_calls(running.counts()) == sum(counts[q] for q in expected)


@each
@shipped
def test_bytes_of_state_are_those_of_the_cards_formula(framework: str, method: str) -> None:
    running, _ = ran(framework, method)
    card = tiny.card(method)
    expected = card.state_numbers(card.resolve(GIVEN.get(method, {})), d=D)
    assert expected is not None
    slack = 0.0
    if method == "lbfgs":
        slack = D + 3  # optax keeps the gradient of its line search beside them, and a weight per pair
    assert expected * 8 <= sum(running.state_bytes().values()) <= (expected + slack) * 8


def test_a_foreign_jax_loop_is_counted_by_callback_and_marked_self_reported(tmp_path: Any) -> None:
    file = tmp_path / "foreign.py"
    file.write_text(
        "import jax, optax\n\n\n"
        "def search(learning_rate: float = 0.1):\n"
        "    def update(updates, state, params=None, *, value_fn, **extra):\n"
        "        total = jax.lax.fori_loop(0, 3, lambda i, t: t + value_fn(params), 0.0 * value_fn(params))\n"
        "        return jax.tree.map(lambda g: -learning_rate * g + 0 * total, updates), state\n\n"
        "    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)\n"
    )
    spec = run_spec(f"{file}:search", framework="jax", needs=["gradient", "loss_function"])
    running = engine(spec, tiny.mlp(0.1, batch=N))
    assert running.self_reported == ["loss_function"]
    for step in range(5):
        running.step(step, float("inf"))
    assert seen(running) == {"gradient": 5, "loss_function": 20, "samples": 25 * N}
    assert seen(running) == {"gradient": 5, "loss_function": 20, "samples": 25 * N}, "reading changes nothing"
