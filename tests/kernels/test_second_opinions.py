"""What curvlinops and backpack say of the same quantities: products, traces, diagonals, spectra, per-sample gradients.

Random quantities are compared draw by draw: both sides are given the same probes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from curvebench.kernels import hutchinson_torch as T
from curvebench.kernels import lanczos_torch as L
from curvebench.kernels.per_sample_torch import per_sample_gradients
from curvebench.kernels.products_torch import (
    differentiate,
    gauss_newton_vector_product,
    hessian_vector_product,
    on_vectors,
)

curvlinops: Any = pytest.importorskip("curvlinops", reason="make install brings the second opinions")
backpack: Any = pytest.importorskip("backpack", reason="make install brings the second opinions")

# backpack's hooks, at a first layer whose inputs need no gradient
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")

BATCH, D = 7, 43


class Case:
    """A network that both packages understand, its loss, and its products on vectors."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()
        self.loss = nn.CrossEntropyLoss()
        self.x, self.y = torch.randn(BATCH, 4, dtype=torch.float64), torch.randint(0, 3, (BATCH,))
        self.params = list(self.net.parameters())
        assert sum(p.numel() for p in self.params) == D

    def hvp(self) -> Callable[[Tensor], Tensor]:
        gradient = differentiate([self.loss(self.net(self.x), self.y)], self.params, create_graph=True)
        return on_vectors(lambda v: hessian_vector_product(gradient, self.params, v), self.params)

    def ggnvp(self) -> Callable[[Tensor], Tensor]:
        outputs = self.net(self.x)

        def product(v: list[Tensor]) -> list[Tensor]:
            return gauss_newton_vector_product(outputs, self.params, v, lambda o: self.loss(o, self.y))

        return on_vectors(product, self.params)

    def operator(self, name: str) -> Any:
        return getattr(curvlinops, name)(self.net, self.loss, self.params, [(self.x, self.y)])


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.fixture(scope="module")
def probes() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((9, D))


@pytest.mark.parametrize(("name", "ours"), [("HessianLinearOperator", "hvp"), ("GGNLinearOperator", "ggnvp")])
def test_products_are_those_of_curvlinops(case: Case, probes: np.ndarray, name: str, ours: str) -> None:
    theirs, apply = case.operator(name), getattr(case, ours)()
    for v in torch.from_numpy(probes):
        torch.testing.assert_close(apply(v), theirs @ v, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("law", ["rademacher", "normal"])
@pytest.mark.parametrize("quantity", ["trace", "diag"])
def test_hutchinson_is_that_of_curvlinops(
    case: Case, probes: np.ndarray, monkeypatch: pytest.MonkeyPatch, quantity: str, law: str
) -> None:
    """Both are given the same probes in turn."""
    Z = torch.from_numpy(np.sign(probes) if law == "rademacher" else probes)
    module = __import__("sys").modules[getattr(curvlinops, f"hutchinson_{quantity}").__module__]
    queue = iter(Z)
    monkeypatch.setattr(module, "random_vector", lambda *_: next(queue))
    theirs = getattr(curvlinops, f"hutchinson_{quantity}")(case.operator("HessianLinearOperator"), len(Z), law)
    ours = T.hutchinson_trace if quantity == "trace" else T.hutchinson_diagonal
    torch.testing.assert_close(ours(case.hvp(), Z).value, theirs, rtol=1e-11, atol=1e-14)


def test_the_spectral_density_is_that_of_curvlinops_for_the_same_start(case: Case) -> None:
    """Its start is one standard normal draw from torch's global generator."""
    steps, points = 12, 200
    operator = case.operator("HessianLinearOperator")
    values = np.linalg.eigvalsh((operator @ torch.eye(D, dtype=torch.float64)).numpy())
    bounds = (float(values[0]), float(values[-1]))
    torch.manual_seed(3)
    grid, theirs = curvlinops.lanczos_approximate_spectrum(operator, steps, num_points=points, boundaries=bounds)
    torch.manual_seed(3)
    found = L.spectrum(case.hvp(), [torch.randn(D, dtype=torch.float64)], steps)
    width = (bounds[1] - bounds[0]) * 1.1 / (steps - 1) / np.sqrt(8 * np.log(3))  # its kappa = 3 and margin = 0.05
    torch.testing.assert_close(found.density(grid, width), theirs, rtol=1e-6, atol=1e-8)
    assert found.smoothing() == pytest.approx(width, rel=0.05), "from Ritz values instead of the exact extremes"


def backpacked(case: Case, *extensions: Any) -> nn.Module:
    net = backpack.extend(Case().net)
    net.load_state_dict(case.net.state_dict())
    loss = backpack.extend(nn.CrossEntropyLoss())(net(case.x), case.y)
    with backpack.backpack(*extensions):
        loss.backward()
    return net


@pytest.mark.parametrize(("extension", "attribute", "ours"), [
    ("DiagHessian", "diag_h", "hvp"), ("DiagGGNExact", "diag_ggn_exact", "ggnvp"),
])  # fmt: skip
def test_diagonals_are_the_exact_ones_of_backpack(case: Case, extension: str, attribute: str, ours: str) -> None:
    """Exactly, by all unit vectors; and Hutchinson's estimate of it within five of its own standard errors."""
    net = backpacked(case, getattr(backpack.extensions, extension)())
    exact = torch.cat([getattr(p, attribute).reshape(-1) for p in net.parameters()])
    apply = getattr(case, ours)()
    found = torch.stack([e @ apply(e) for e in torch.eye(D, dtype=torch.float64)])
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-14)
    signs = torch.from_numpy(np.random.default_rng(1).integers(0, 2, (300, D)) * 2.0 - 1)
    estimate = T.hutchinson_diagonal(apply, signs)
    assert ((estimate.value - exact).abs() <= 5 * estimate.standard_error).all()


def test_per_sample_gradients_are_those_of_backpack(case: Case) -> None:
    net = backpacked(case, backpack.extensions.BatchGrad())

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return case.loss(functional_call(case.net, parameters, (x,)), y)

    ours = per_sample_gradients(loss, {n: p.detach() for n, p in case.net.named_parameters()}, case.x, case.y)
    for name, p in net.named_parameters():
        torch.testing.assert_close(ours[name], BATCH * p.grad_batch, rtol=1e-11, atol=1e-15)  # theirs: of the mean loss
