"""The cards of the suite: all valid, and each method's arguments are what its constructor takes."""

import importlib
import inspect
import re
from typing import Any

import pytest

from curvebench import cards
from curvebench.cards import MethodCard

METHODS = cards.names("methods")

# optax's None for "no such thing", which TOML cannot write: no momentum buffer, no decay, the root of beta2, no warm-up
NONE_IS_MEANT = {
    ("sgd", "jax"): {"momentum"},
    ("rmsprop", "jax"): {"momentum"},
    ("adafactor", "jax"): {"momentum", "dtype_momentum", "weight_decay_rate", "weight_decay_mask"},
    ("prodigy", "jax"): {"beta3"},
    ("schedule-free", "jax"): {"warmup_steps", "state_dtype"},
}

LEFT_TO_THE_LIBRARY = {
    "params", "model", "base", "layers",  # the optimisation variables, its layers, and the optimiser that is wrapped
    "factor_dtype",  # None: the parameters' own
    "foreach", "fused", "capturable", "differentiable",  # how torch computes, not what
    "mu_dtype", "accumulator_dtype", "mask",  # None in optax: the parameters' own dtype, no mask
    "generator",  # the harness's oracle draws
    "kwargs",  # pytorch_optimizer's experiments
}  # fmt: skip


@pytest.mark.parametrize("kind", cards.KINDS)
def test_all_valid(kind: str) -> None:
    assert [card.name for card in cards.load_all(kind)] == cards.names(kind)


def test_the_eight_of_the_quick_study_are_there() -> None:
    assert {"sgd", "momentum", "nesterov", "adam", "adamw", "lbfgs", "adahessian", "mezo"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_complete(name: str) -> None:
    card = cards.method(name)
    assert card.paper is not None
    assert card.search, "nothing to tune"
    queries = card.queries_per_step(card.resolve({}), d=1000, batch=10)
    state = card.state_numbers(card.resolve({}), d=1000)
    assert card.cost.varies or (queries and state is not None), "a cost is a formula, or a sentence why there is none"
    assert all(count > 0 for count in queries.values())
    assert state is None or state >= 0
    assert all(entry.about for entry in card.hyperparameters.values())


def constructor(card: MethodCard, framework: str) -> Any:
    module, _, attribute = card.implementation[framework].target.partition(":")  # type: ignore[index]
    pytest.importorskip(module.partition(".")[0])
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("name", "framework"), [(n, f) for n in METHODS for f in cards.method(n).frameworks])
def test_arguments_fit_the_constructor_and_leave_nothing_to_its_defaults(name: str, framework: str) -> None:
    card = cards.method(name)
    target = constructor(card, framework)
    parameters = inspect.signature(target).parameters
    arguments = card.arguments(framework, card.resolve({}))
    assert set(arguments) <= set(parameters)
    open_ones = set(parameters) - set(arguments) - LEFT_TO_THE_LIBRARY
    assert open_ones == NONE_IS_MEANT.get((name, framework), set())


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "adamw", "lbfgs", "adahessian"])
def test_state_formula_is_what_torch_keeps(name: str) -> None:
    torch = pytest.importorskip("torch")
    d, card = 30, cards.method(name)
    resolved = card.resolve({"history": 3} if name == "lbfgs" else {})
    theta = torch.linspace(-1, 1, d, dtype=torch.float64).requires_grad_()
    scales = torch.logspace(0, 2, d, dtype=torch.float64)
    optimizer = constructor(card, "torch")([theta], **card.arguments("torch", resolved))

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (scales * theta.square()).sum()
        if name != "adahessian":  # it differentiates the returned loss itself
            loss.backward()
        return loss

    for _ in range(6):
        optimizer.step(closure)
    kept = sum(tensor.numel() for tensor in _tensors(optimizer.state[theta]) if tensor.numel() >= d)
    assert kept == card.state_numbers(resolved, d=d)


def _tensors(value: Any) -> list[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list) else []


def test_no_card_names_a_path_of_a_machine() -> None:
    for kind in cards.KINDS:
        for name in cards.names(kind):
            text = cards.path_of(kind, name).read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|Users)/", text), f"{kind}/{name}"
