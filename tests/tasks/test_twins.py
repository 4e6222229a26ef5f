"""Every shipped task: torch = jax on loss, gradient and HVP, each offered query against differences, its numbers."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from curvebench import cards, tasks
from curvebench.data.cifar import Cifar
from curvebench.errors import CardError
from curvebench.spec import Query
from curvebench.tasks import cifar_resnet
from curvebench.tasks.problem import Problem

SHIPPED = ["cifar10-resnet20", "cifar10-resnet20-gn", "digits-cnn", "least-squares", "logistic-breast-cancer"]
KINKED = {"digits-cnn", "cifar10-resnet20", "cifar10-resnet20-gn"}
HELD = 5000


def images(n: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, n)


def fake_cifar(folder: Any = None, *, card: Any = None) -> Cifar:
    return Cifar(*images(HELD + 8, 0), *images(8, 1))


SMALL = {"train": 8, "validation": 5, "test": 7}


@functools.cache
def problem(name: str, seed_block: int = 0, scale: str = "quick", **options: Any) -> Problem:
    """The task as shipped, with mini-batches of 2; CIFAR from noise."""
    card = cards.task(name)
    at = card.at(scale)
    if card.dataset != "cifar10":
        found = tasks.load(card, scale, seed_block)
        return found if found.batch is None else replace(found, batch=2)
    before = cifar_resnet.load_cifar10
    cifar_resnet.load_cifar10 = fake_cifar  # type: ignore[assignment]  # the cache outlives a fixture
    try:
        return cifar_resnet.problem(card, replace(at, batch=2, options={**at.options, **SMALL, **options}), seed_block)
    finally:
        cifar_resnet.load_cifar10 = before


@functools.cache
def torch_oracle(name: str) -> tiny.Torch:
    return tiny.Torch(problem(name))


# XLA compiles by the layer: a network's shortest form, which has every kind of its layers, will do by day.
DEPTHS = [pytest.param(n, {"depth": 8} if "resnet" in n else {}, id=n) for n in SHIPPED]
WHOLE = [pytest.param(n, {}, id=f"{n}-whole", marks=pytest.mark.nightly) for n in SHIPPED if "resnet" in n]


@pytest.mark.parametrize(("name", "options"), DEPTHS + WHOLE)
def test_torch_and_jax_agree_on_loss_gradient_and_hvp(name: str, options: dict[str, int]) -> None:
    at = problem(name, **options)
    left, right = tiny.Torch(at), tiny.Jax(at)
    v = tiny.tangent(at)

    def ask(jaxed: Any, params: Any, v: Any) -> Any:
        point = jaxed.at(params, needs=(Query.GRADIENT, Query.HVP))
        return point.loss(), point.gradient(), point.hvp(v)

    loss, gradient, product = right.trace(ask, None, v)
    assert tiny.relative(left.ask("loss"), loss) < 1e-12
    assert tiny.relative(left.ask("gradient"), gradient) < 1e-10
    assert tiny.relative(left.ask("hvp", v=v), product) < 1e-9


@pytest.mark.parametrize("name", SHIPPED)
def test_every_offered_query_against_central_differences(name: str) -> None:
    """Offered queries answer, and right: loss -> gradient -> HVP by differences, the others from these.

    A ReLU whose input changes sign inside the difference would spoil it: steps are small where there are any, and
    biases are not zero (behind a blank border of a digit, a zero bias puts a ReLU exactly on its kink).
    """
    oracle = torch_oracle(name)
    offers = set(cards.task(name).offers)
    params = tiny.shifted(oracle.problem.parameters, 0.02, tiny.tangent(oracle.problem, 8))
    v = tiny.tangent(oracle.problem)
    h, tolerance = (1e-7, 1e-4) if name in KINKED else (1e-5, 1e-7)
    scale = np.sqrt(tiny.dot(v, v))
    v = {n: x / scale for n, x in v.items()}
    gradient = oracle.ask("gradient", params)
    slope = (oracle.ask("loss", tiny.shifted(params, h, v)) - oracle.ask("loss", tiny.shifted(params, -h, v))) / (2 * h)
    size = np.sqrt(tiny.dot(gradient, gradient))
    assert abs(tiny.dot(gradient, v) - slope) < tolerance * size
    answered = {Query.LOSS, Query.GRADIENT, Query.LOSS_FUNCTION}
    assert float(oracle.oracle.loss_function()().detach()) == pytest.approx(oracle.ask("loss"), rel=1e-12)
    x, y = oracle.task.batch(0)
    if Query.JVP in offers:
        assert abs(oracle.ask("jvp", params, v) - tiny.dot(gradient, v)) < 1e-10 * size
        answered.add(Query.JVP)
    if Query.HVP in offers:
        above, below = (oracle.ask("gradient", tiny.shifted(params, s, v)) for s in (h, -h))
        assert tiny.relative(oracle.ask("hvp", params, v), {n: (above[n] - below[n]) / (2 * h) for n in v}) < tolerance
        answered.add(Query.HVP)
    if Query.GGNVP in offers:
        u = tiny.tangent(oracle.problem, 9)
        left, right = oracle.ask("ggnvp", params, u), oracle.ask("ggnvp", params, v)
        assert tiny.dot(v, left) == pytest.approx(tiny.dot(u, right), rel=1e-8), "symmetric"
        assert tiny.dot(v, right) > 0, "positive along v"
        if oracle.problem.criterion != "cross-entropy":  # linear models: the Gauss-Newton matrix is the Hessian
            assert tiny.relative(left, oracle.ask("hvp", params, u)) < 1e-10
        answered.add(Query.GGNVP)
    if Query.PER_SAMPLE_GRADIENT in offers:
        rows = oracle.ask("per_sample_gradient", params)
        assert tiny.relative({n: r.mean(0) for n, r in rows.items()}, gradient) < 1e-9
        one = oracle.ask("gradient", params, batch=(x[1:2], y[1:2]))
        assert tiny.relative({n: r[1] for n, r in rows.items()}, one) < 1e-9
        answered.add(Query.PER_SAMPLE_GRADIENT)
    if Query.LAYER_STATISTICS in offers:
        check_layers(oracle, params, gradient)
        answered.add(Query.LAYER_STATISTICS)
    assert offers <= answered


def check_layers(oracle: tiny.Torch, params: tiny.Arrays, gradient: tiny.Arrays) -> None:
    layers = oracle.ask("layer_statistics", params)
    l2 = oracle.problem.l2
    assert sorted(f"{name}.weight" for name in layers) == sorted(n for n, p in params.items() if p.ndim > 1)
    for name, ((x,), (g,)) in layers.items():
        weight = params[f"{name}.weight"]
        if weight.ndim == 4:
            size = weight.shape[-1]
            stride = x.shape[-1] // g.shape[-1]
            columns = torch.nn.functional.unfold(torch.tensor(x), size, padding=size // 2, stride=stride).numpy()
            total = np.einsum("bop,bip->oi", g.reshape(*g.shape[:2], -1), columns).reshape(weight.shape)
        else:
            total = g.T @ x
        assert tiny.relative(total + l2 * weight, gradient[f"{name}.weight"]) < 1e-9, name


@pytest.mark.parametrize(("depth", "dimension"), [(20, 272_474), (32, 466_906)])
@pytest.mark.parametrize("name", ["cifar10-resnet20", "cifar10-resnet20-gn"])
def test_parameter_counts_of_the_cifar_networks(name: str, depth: int, dimension: int) -> None:
    found = problem(name, depth=depth)
    assert found.dimension == dimension
    module = found.torch_module()
    assert sum(p.numel() for p in module.parameters()) == dimension
    assert [(n, tuple(p.shape)) for n, p in module.named_parameters()] == [
        (n, p.shape) for n, p in found.parameters.items()
    ]
    assert len([p for n, p in found.parameters.items() if p.ndim == 4 and "shortcut" not in n]) + 1 == depth
    buffered = {n for n, _ in module.named_buffers() if "running" in n}
    assert set(found.buffers) == buffered
    assert bool(buffered) == (name == "cifar10-resnet20")


def test_parameter_count_of_the_digits_network() -> None:
    assert problem("digits-cnn").dimension == 9_930


def test_a_depth_or_norm_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="depth = 21: must be 6k"):
        problem("cifar10-resnet20", depth=21)
    with pytest.raises(ValueError, match="norm = 'layer': must be 'batch' or 'group'"):
        problem("cifar10-resnet20", norm="layer").torch_module()
    with pytest.raises(ValueError, match="validation = 5001"):
        problem("cifar10-resnet20", validation=5001)
    with pytest.raises(ValueError, match="train = 9"):
        problem("cifar10-resnet20", train=9)


def test_validation_is_the_tail_that_is_never_trained_on() -> None:
    found = problem("cifar10-resnet20")
    cifar = fake_cifar()
    assert found.validation is not None
    assert found.test is not None
    assert np.array_equal(found.train.inputs, cifar.train_images[:8])
    assert np.array_equal(found.validation.inputs, cifar.train_images[8:13])
    assert np.array_equal(found.validation.targets, cifar.train_labels[8:13])
    assert np.array_equal(found.test.inputs, cifar.test_images[:7])
    parts = {part: {row.tobytes() for row in split.inputs} for part, split in
             (("train", found.train), ("validation", found.validation), ("test", found.test))}  # fmt: skip
    assert not parts["train"] & parts["validation"]
    assert not parts["train"] & parts["test"]
    digits = tasks.load(cards.task("digits-cnn"), "quick", 0)
    assert digits.validation is not None
    assert digits.test is not None
    assert len(digits.train) + len(digits.validation) + len(digits.test) == 1797


def test_every_validation_image_stays_out_of_the_full_training_set() -> None:
    """At the card's own sizes: 45,000 and 5,000 of 50,000 share no image."""
    card = cards.task("cifar10-resnet20")
    options = card.at("standard").options
    sizes = cards.dataset("cifar10").splits
    assert (options["train"], options["validation"]) == (sizes["train"], sizes["validation"]) == (45_000, 5_000)


@pytest.mark.parametrize("name", SHIPPED)
def test_initial_parameters_depend_on_the_seed_block_and_nothing_else(name: str) -> None:
    first, again, other = problem(name), problem.__wrapped__(name), problem(name, 1)
    assert all(np.array_equal(first.parameters[n], again.parameters[n]) for n in first.parameters)
    weights = [n for n, p in first.parameters.items() if p.ndim > 1]
    assert all(not np.array_equal(first.parameters[n], other.parameters[n]) for n in weights)
    assert np.array_equal(first.train.inputs, other.train.inputs), "the data are the same in every block"
    live = torch_oracle(name).task.objective.module.state_dict()
    assert all(np.array_equal(live[n].numpy(), p) for n, p in first.parameters.items())


def test_images_are_normalised_by_the_cards_mean_and_deviation() -> None:
    found = problem("cifar10-resnet20")
    card = cards.dataset("cifar10")
    assert card.normalisation is not None
    mean, std = (np.array(v)[:, None, None] for v in (card.normalisation.mean, card.normalisation.std))
    inputs, targets = torch_oracle("cifar10-resnet20").task.batch(0)
    rows = found.order()[0]
    assert tiny.relative(inputs.numpy(), (found.train.inputs[rows] / 255.0 - mean) / std) < 1e-12
    assert np.array_equal(targets.numpy(), found.train.targets[rows])


def test_a_task_card_whose_module_does_not_exist_is_refused() -> None:
    card = replace(cards.task("least-squares"), module="curvebench.tasks.nothing")
    with pytest.raises(
        CardError, match=r"tasks/least-squares.toml: module = 'curvebench.tasks.nothing': No module named"
    ):
        tasks.load(card, "quick", 0)
    with pytest.raises(CardError, match="no scale 'paper'"):
        tasks.load(cards.task("least-squares"), "paper", 0)
