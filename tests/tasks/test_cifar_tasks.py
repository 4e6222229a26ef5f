"""The CIFAR networks: parameter counts of the papers, torch = jax, what their cards promise, on images from noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny

from curvebench import cards
from curvebench.data.cifar import Cifar
from curvebench.spec import Query
from curvebench.tasks import cifar_cnn, cifar_images, cifar_resnet, cifar_vit, cifar_wrn
from curvebench.tasks.problem import Problem

MODULES = {"cifar_cnn": cifar_cnn, "cifar_resnet": cifar_resnet, "cifar_vit": cifar_vit, "cifar_wrn": cifar_wrn}
COUNTS = {
    "cifar10-resnet20": 272_474, "cifar10-resnet32": 466_906, "cifar100-wrn-22-2": 1_092_836,
    "cifar100-resnet18": 11_220_132, "cifar10-cnn730": 730, "cifar10-cnn3700": 3_700, "cifar10-cnn6670": 6_670,
    "cifar10-cnn9640": 9_640, "cifar10-cnn12610": 12_610,
}  # fmt: skip
SMALL = {"train": 8, "validation": 5, "test": 7}


def fake(classes: int) -> Cifar:
    rng = np.random.default_rng(classes)
    parts = []
    for n in (5008, 8):
        parts += [rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), rng.integers(0, classes, n)]
    return Cifar(*parts)


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cifar_images, cifar_resnet):
        monkeypatch.setattr(module, "load_cifar10", lambda: fake(10))
    monkeypatch.setattr(cifar_images, "load_cifar100", lambda: fake(100))


def problem(name: str, scale: str = "quick", **options: Any) -> Problem:
    card = cards.task(name)
    at = card.at(scale)
    module = MODULES[card.module.rpartition(".")[2]]
    return module.problem(card, replace(at, batch=2, options={**at.options, **SMALL, **options}), 0)


def distance(one: Any, other: Any) -> float:
    """Over all parameters jointly: in front of BatchNorm a bias has no gradient but rounding."""
    squares = sum(float(np.sum((one[n] - other[n]) ** 2)) for n in one)
    return float(np.sqrt(squares / sum(float(np.sum(one[n] ** 2)) for n in one)))


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("name", COUNTS)
def test_as_many_parameters_as_the_paper_says(name: str) -> None:
    at = problem(name)
    assert at.dimension == COUNTS[name]
    module = at.torch_module()
    assert {n: tuple(p.shape) for n, p in module.named_parameters()} == {n: p.shape for n, p in at.parameters.items()}


@pytest.mark.parametrize(("depth", "widen", "count"), [(40, 2, 2_258_084), (22, 4, 4_325_252)])
def test_the_siblings_of_the_wide_resnet(depth: int, widen: int, count: int) -> None:
    parameters = cifar_wrn.initial(np.random.default_rng(0), cifar_wrn.blocks(depth, widen), 100)
    assert sum(p.size for p in parameters.values()) == count


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar10-cnn3700", {}),
        pytest.param("cifar100-wrn-22-2", {"depth": 10, "widen": 1}, marks=pytest.mark.nightly),
        ("cifar10-vit", {"depth": 1, "width": 8, "heads": 2, "hidden": 12}),
    ],
)
def test_torch_and_jax_agree(name: str, options: dict[str, int]) -> None:
    at = problem(name, **options)
    rng = np.random.default_rng(3)  # away from zero heads and biases, where gradients vanish
    at = replace(at, parameters={n: p + 0.1 * rng.standard_normal(p.shape) for n, p in at.parameters.items()})
    left, right = tiny.Torch(at), tiny.Jax(at)
    v = tiny.tangent(at)
    assert left.task.problem.augment is not None

    def ask(jaxed: Any, params: Any, v: Any) -> Any:
        point = jaxed.at(params, needs=(Query.GRADIENT, Query.HVP))
        return point.loss(), point.gradient(), point.hvp(v)

    loss, gradient, product = right.trace(ask, None, v)
    assert tiny.relative(left.ask("loss"), loss) < 1e-12
    assert distance(left.ask("gradient"), gradient) < 1e-9
    assert distance(left.ask("hvp", v=v), product) < 1e-8


@pytest.mark.usefixtures("noise")
def test_the_transformer_offers_per_sample_gradients() -> None:
    oracle = tiny.Torch(problem("cifar10-vit", depth=1, width=8, heads=2, hidden=12))
    gradient = oracle.ask("gradient")
    per_sample = oracle.ask("per_sample_gradient")
    for name, value in gradient.items():
        np.testing.assert_allclose(per_sample[name].mean(0), value, atol=1e-10)


@pytest.mark.usefixtures("noise")
def test_impossible_sizes_are_refused() -> None:
    for name, options, why in (
        ("cifar10-cnn730", {"depth": 6}, r"depth = 6: must lie in \[1, 5\]"),
        ("cifar100-wrn-22-2", {"depth": 20}, r"depth = 20, widen = 2: must be 6n \+ 4"),
        ("cifar10-vit", {"heads": 5}, "width = 96: must be a multiple of heads = 5"),
        ("cifar10-cnn730", {"train": 9}, "train = 9, validation = 5, test = 7: must be at most 8, 5000, 8"),
    ):
        with pytest.raises(ValueError, match=why):
            problem(name, **options)


def test_moments_are_the_images() -> None:
    images = fake(10).train_images[:50]
    means, spreads = cifar_images.moments(images)
    np.testing.assert_allclose(means, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(spreads, (images / 255).std(axis=(0, 2, 3)), rtol=1e-12)
