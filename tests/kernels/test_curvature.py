"""Curvature products, per-sample gradients, Hutchinson and Lanczos: references, identities, second opinions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from curvebench.errors import CurvebenchError
from curvebench.kernels import hutchinson_torch as T
from curvebench.kernels import lanczos_torch as L
from curvebench.kernels import reference_curvature as R
from curvebench.kernels.per_sample_torch import per_sample_gradients
from curvebench.kernels.products_torch import (
    differentiate,
    gauss_newton_vector_product,
    hessian_vector_product,
    on_vectors,
)

LAWS = ("rademacher", "normal")
BATCH = 6


def symmetric(d: int, seed: int = 0, eigenvalues: np.ndarray | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    values = rng.standard_normal(d) if eigenvalues is None else eigenvalues
    return (Q * values) @ Q.T


def draws(n: int, d: int, law: str, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (n, d)) * 2.0 - 1 if law == "rademacher" else rng.standard_normal((n, d))


def rows(values: np.ndarray) -> list[Tensor]:
    return list(torch.from_numpy(values))


def product(H: np.ndarray) -> Callable[[Tensor], Tensor]:
    matrix = torch.from_numpy(H)
    return lambda v: matrix @ v


# -- products ----------------------------------------------------------------------------------------------------------


class Problem:
    """A small network with its loss as a function of one vector, for finite differences."""

    def __init__(self, loss: str) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        self.params = list(self.net.parameters())
        self.x = torch.randn(BATCH, 3, dtype=torch.float64)
        self.y = torch.randint(0, 3, (BATCH,)) if loss == "cross-entropy" else torch.randn(BATCH, 3).double()
        self.kind = loss
        self.theta = torch.cat([p.detach().reshape(-1) for p in self.params]).numpy()

    def criterion(self, outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs, self.y) if self.kind == "cross-entropy" else F.mse_loss(outputs, self.y)

    def outputs_at(self, theta: np.ndarray) -> np.ndarray:
        pieces = torch.from_numpy(theta).split([p.numel() for p in self.params])
        names = [n for n, _ in self.net.named_parameters()]
        live = {n: v.view_as(p) for n, v, p in zip(names, pieces, self.params, strict=True)}
        return functional_call(self.net, live, (self.x,)).detach().numpy().reshape(-1)

    def criterion_at(self, outputs: np.ndarray) -> float:
        return float(self.criterion(torch.from_numpy(outputs).view(BATCH, 3)))

    def loss_at(self, theta: np.ndarray) -> float:
        return self.criterion_at(self.outputs_at(theta))

    def hvp(self) -> Callable[[Tensor], Tensor]:
        gradient = differentiate([self.criterion(self.net(self.x))], self.params, create_graph=True)
        return on_vectors(lambda v: hessian_vector_product(gradient, self.params, v), self.params)

    def ggnvp(self) -> Callable[[Tensor], Tensor]:
        outputs = self.net(self.x)
        return on_vectors(lambda v: gauss_newton_vector_product(outputs, self.params, v, self.criterion), self.params)


def dense(apply: Callable[[Tensor], Tensor], d: int) -> np.ndarray:
    return torch.stack([apply(e) for e in torch.eye(d, dtype=torch.float64)], dim=1).numpy()


@pytest.fixture(params=["cross-entropy", "squared"], scope="module")
def problem(request: pytest.FixtureRequest) -> Problem:
    return Problem(request.param)


def test_hessian_vector_products_are_second_differences_of_the_loss(problem: Problem) -> None:
    H = dense(problem.hvp(), len(problem.theta))
    np.testing.assert_allclose(H, R.hessian(problem.loss_at, problem.theta), atol=2e-6)
    np.testing.assert_allclose(H, H.T, atol=1e-15)


def test_gauss_newton_vector_products_are_the_reference_and_positive_semidefinite(problem: Problem) -> None:
    G = dense(problem.ggnvp(), len(problem.theta))
    expected = R.gauss_newton(problem.outputs_at, problem.criterion_at, problem.theta)
    np.testing.assert_allclose(G, expected, atol=2e-6)
    np.testing.assert_allclose(G, G.T, atol=1e-15)
    assert np.linalg.eigvalsh(G)[0] > -1e-14


def test_products_of_parameters_that_the_loss_does_not_curve_in_are_zero() -> None:
    p, q = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    gradient = differentiate([(2 * p).sum()], [p, q], create_graph=True)
    found = hessian_vector_product(gradient, [p, q], [torch.ones(2), torch.ones(3)])
    assert [v.tolist() for v in found] == [[0, 0], [0, 0, 0]]
    for outputs, criterion in ((torch.ones(2) * 3, torch.sum), (p * 3, torch.sum), (p.detach(), torch.square)):
        found = gauss_newton_vector_product(
            outputs.requires_grad_(), [p, q], [torch.ones(2), torch.ones(3)], lambda o, f=criterion: f(o).sum()
        )
        assert [v.tolist() for v in found] == [[0, 0], [0, 0, 0]]


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_per_sample_gradients_are_the_gradients_of_batches_of_one(chunk_size: int | None) -> None:
    problem = Problem("cross-entropy")
    names = [n for n, _ in problem.net.named_parameters()]

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(problem.net, parameters, (x,)), y)

    live = {n: p.detach() for n, p in problem.net.named_parameters()}
    found = per_sample_gradients(loss, live, problem.x, problem.y, chunk_size=chunk_size)
    for n in range(BATCH):
        alone = differentiate(
            [F.cross_entropy(problem.net(problem.x[n : n + 1]), problem.y[n : n + 1])], problem.params
        )
        flat = np.concatenate([found[name][n].numpy().reshape(-1) for name in names])
        np.testing.assert_allclose(flat, torch.cat([g.reshape(-1) for g in alone]).numpy(), rtol=1e-12, atol=1e-15)
    third = np.concatenate([found[name][2].numpy().reshape(-1) for name in names])

    def third_loss(theta: np.ndarray) -> float:
        live = dict(zip(names, torch.from_numpy(theta).split([p.numel() for p in problem.params]), strict=True))
        live = {n: v.view_as(p) for (n, v), p in zip(live.items(), problem.params, strict=True)}
        return float(loss(live, problem.x[2:3], problem.y[2:3]))

    np.testing.assert_allclose(third, R.gradient(third_loss, problem.theta), atol=1e-9)


# -- Hutchinson --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_estimates_are_the_reference_for_the_same_probes(law: str) -> None:
    H, Z = symmetric(7), draws(20, 7, law)
    diagonal, trace = T.hutchinson_diagonal(product(H), rows(Z)), T.hutchinson_trace(product(H), rows(Z))
    for found, expected in ((diagonal, R.hutchinson_diagonal(H, Z)), (trace, R.hutchinson_trace(H, Z))):
        assert found.draws == 20
        np.testing.assert_allclose(found.value.numpy(), expected[0], rtol=1e-12)
        np.testing.assert_allclose(found.standard_error.numpy(), expected[1], rtol=1e-10)
    S = draws(3, 7, law, seed=2)
    plus = T.hutchpp_trace(product(H), torch.from_numpy(S), rows(Z))
    np.testing.assert_allclose(plus.value.numpy(), R.hutchpp_trace(H, S, Z), rtol=1e-10)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_one_rademacher_probe_is_exact_for_a_diagonal_matrix(values: Sequence[float], seed: int) -> None:
    H, z = np.diag(values), rows(draws(1, len(values), "rademacher", seed))
    assert T.hutchinson_diagonal(product(H), z).value.tolist() == list(values)
    assert T.hutchinson_trace(product(H), z).value.item() == pytest.approx(sum(values), rel=1e-12, abs=1e-9)
    assert T.hutchinson_diagonal(product(H), z).standard_error.isnan().all(), "one draw says nothing about its spread"


def test_every_sign_pattern_once_is_the_expectation_which_is_exact() -> None:
    """Unbiased without statistics: the mean over all 2^d Rademacher probes, each as likely, is diag H and tr H."""
    H = symmetric(5)
    signs = rows(np.array(list(itertools.product([-1.0, 1.0], repeat=5))))
    np.testing.assert_allclose(T.hutchinson_diagonal(product(H), signs).value.numpy(), np.diag(H), atol=1e-14)
    np.testing.assert_allclose(T.hutchinson_trace(product(H), signs).value.item(), np.trace(H), atol=1e-13)


def test_block_traces_are_the_reference_unbiased_and_within_five_of_their_exact_standard_errors() -> None:
    n, H, sizes = 4000, symmetric(7), (1, 4, 2)
    truth = [np.trace(H[a:b, a:b]) for a, b in ((0, 1), (1, 5), (5, 7))]
    Z = draws(n, 7, "rademacher")
    found = T.hutchinson_block_traces(product(H), rows(Z), sizes).value.numpy()
    np.testing.assert_allclose(found, R.hutchinson_block_traces(H, Z, sizes), rtol=1e-10)
    exact = np.sqrt(R.block_trace_variance(H, sizes) / n)
    assert (np.abs(found - truth) < 5 * exact).all()
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=7)))
    whole = T.hutchinson_block_traces(product(H), rows(signs), sizes)
    np.testing.assert_allclose(whole.value.numpy(), truth, atol=1e-13)
    spread = whole.standard_error.numpy() * np.sqrt(len(signs) - 1)  # of the whole population of probes
    np.testing.assert_allclose(spread**2, R.block_trace_variance(H, sizes), rtol=1e-10)


@pytest.mark.parametrize("law", LAWS)
def test_a_mean_of_many_probes_is_within_five_of_its_exact_standard_errors(law: str) -> None:
    n, H = 4000, symmetric(8)
    Z = rows(draws(n, 8, law))
    diagonal, trace = T.hutchinson_diagonal(product(H), Z), T.hutchinson_trace(product(H), Z)
    exact = np.sqrt(R.diagonal_variance(H, law) / n)
    assert (np.abs(diagonal.value.numpy() - np.diag(H)) < 5 * exact).all()
    assert abs(trace.value.item() - np.trace(H)) < 5 * np.sqrt(R.trace_variance(H, law) / n)
    # and the printed error is that one: of n draws its relative deviation is about sqrt(kurtosis / 4 n)
    np.testing.assert_allclose(diagonal.standard_error.numpy(), exact, rtol=0.1)
    np.testing.assert_allclose(trace.standard_error.numpy(), np.sqrt(R.trace_variance(H, law) / n), rtol=0.1)


def test_hutchpp_is_exact_up_to_the_rank_of_its_sketch_and_beats_hutchinson_where_the_spectrum_decays() -> None:
    H = symmetric(12, eigenvalues=np.array([5.0, -2.0, 1.0] + [0.0] * 9))
    found = T.hutchpp_trace(product(H), torch.from_numpy(draws(3, 12, "normal", 2)), rows(draws(4, 12, "normal")))
    assert found.value.item() == pytest.approx(4.0, rel=1e-10)
    assert found.standard_error.item() < 1e-10
    H = symmetric(40, eigenvalues=0.5 ** np.arange(40))
    plus, plain = [], []
    for seed in range(20):
        S, Z = draws(8, 40, "rademacher", 2 * seed), draws(24, 40, "rademacher", 2 * seed + 1)
        plus.append(T.hutchpp_trace(product(H), torch.from_numpy(S), rows(Z[:8])).value.item() - np.trace(H))
        plain.append(T.hutchinson_trace(product(H), rows(Z)).value.item() - np.trace(H))
    assert np.sqrt(np.mean(np.square(plus))) < 0.1 * np.sqrt(np.mean(np.square(plain))), "24 products each"


def test_half_precision_is_averaged_in_single() -> None:
    H = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.bfloat16))
    probes = [torch.tensor([1.0, -1.0], dtype=torch.bfloat16)] * 999
    found = T.hutchinson_trace(lambda v: H @ v, probes)
    assert (found.value.dtype, found.value.item()) == (torch.float32, 4.0)


def test_no_probe_is_refused() -> None:
    with pytest.raises(ValueError, match="probes: there is none: at least one is needed"):
        T.hutchinson_trace(product(np.eye(2)), [])


# -- Lanczos -----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 50), d=st.integers(2, 8))
def test_the_tridiagonal_has_the_eigenvalues_of_a_matrix_whose_eigenvalues_are_distinct(seed: int, d: int) -> None:
    values = np.sort(np.random.default_rng(seed).permutation(20)[:d] - 10.0)
    H, v = symmetric(d, seed, values), draws(1, d, "normal", seed)[0]
    found = L.lanczos(product(H), torch.from_numpy(v), d)
    assert len(found.diagonal) == d
    np.testing.assert_allclose(torch.linalg.eigvalsh(found.matrix()).numpy(), values, atol=1e-10)
    basis = found.basis.numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(d), atol=1e-13)
    np.testing.assert_allclose(basis @ H @ basis.T, found.matrix().numpy(), atol=1e-10)


def test_fewer_steps_are_the_reference() -> None:
    H, v = symmetric(30), draws(1, 30, "normal")[0]
    np.testing.assert_allclose(
        L.lanczos(product(H), torch.from_numpy(v), 9).matrix().numpy(), R.lanczos(H, v, 9), atol=1e-12
    )


def test_it_stops_where_the_krylov_space_is_exhausted() -> None:
    """Three distinct eigenvalues in dimension 20: three steps, and their values are exact."""
    H = symmetric(20, eigenvalues=np.repeat([-1.0, 2.0, 7.0], [10, 6, 4]))
    found = L.lanczos(product(H), torch.from_numpy(draws(1, 20, "normal")[0]), 15)
    assert len(found.diagonal) == 3
    assert found.residual.item() == 0
    np.testing.assert_allclose(torch.linalg.eigvalsh(found.matrix()).numpy(), [-1, 2, 7], atol=1e-12)
    zero = L.lanczos(product(np.zeros((4, 4))), torch.ones(4, dtype=torch.float64), 3)
    assert zero.matrix().tolist() == [[0.0]]


def test_orthogonality_holds_in_single_precision_where_plain_lanczos_loses_it() -> None:
    """Converged extreme eigenvalues make the three-term recursion find them again and again; this one does not."""
    d, k = 200, 60
    H = torch.from_numpy(symmetric(d, eigenvalues=np.r_[100.0, 50.0, np.linspace(0, 1, d - 2)])).float()
    start = torch.from_numpy(draws(1, d, "normal")[0]).float()
    found = L.lanczos(lambda v: H @ v, start, k)
    assert (found.basis @ found.basis.T - torch.eye(k)).abs().max() < 1e-5
    values = torch.linalg.eigvalsh(found.matrix().double())
    assert (values > 75).sum() == 1
    plain, v, before, beta = [], start / start.norm(), torch.zeros(d), torch.tensor(0.0)
    for _ in range(k):
        plain.append(v)
        w = H @ v - beta * before
        w = w - (w @ v) * v
        beta = w.norm()
        before, v = v, w / beta
    assert (torch.stack(plain) @ torch.stack(plain).T - torch.eye(k)).abs().max() > 0.1


def test_moments_are_exact_for_the_starts_and_within_five_standard_errors_of_the_traces() -> None:
    """A quadrature of k nodes integrates degree 2k - 1 exactly: up to there the only error is the starts' own."""
    n, d, steps = 400, 15, 4
    H, V = symmetric(d), draws(n, d, "normal")
    found = L.spectrum(product(H), rows(V), steps)
    for k in range(2 * steps):
        moment = found.moment(k)
        assert moment.value.item() == pytest.approx(R.spectral_moment(H, V, k), rel=1e-9, abs=1e-12)
        truth = np.trace(np.linalg.matrix_power(H, k)) / d
        assert abs(moment.value.item() - truth) <= 5 * moment.standard_error.item() + 1e-12
    assert abs(found.moment(2 * steps).value.item() - R.spectral_moment(H, V, 2 * steps)) > 1e-6, "degree 2k is not"


def test_the_density_integrates_to_one_and_with_all_nodes_of_all_starts_is_the_smoothed_spectrum() -> None:
    d, width = 10, 0.2
    H = symmetric(d)
    values = np.linalg.eigvalsh(H)
    grid = torch.linspace(float(values[0]) - 2, float(values[-1]) + 2, 800, dtype=torch.float64)
    # Signs in the eigenbasis: every start weighs all eigenvalues alike, so a full quadrature is the spectrum itself.
    basis = np.linalg.eigh(H)[1]
    starts = rows(draws(3, d, "rademacher") @ basis.T)
    density = L.spectrum(product(H), starts, d).density(grid, width)
    np.testing.assert_allclose(density.numpy(), R.density(values, grid.numpy(), width), atol=1e-9)
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-6)


def test_extreme_eigenvalues_lie_within_their_bounds() -> None:
    values = np.r_[-5.0, np.linspace(-1, 1, 98), 9.0]
    H = symmetric(100, eigenvalues=values)
    for steps in (2, 5, 12, 30):
        found = L.spectrum(product(H), rows(draws(2, 100, "normal")), steps)
        (low, below), (high, above) = found.extremes()
        assert min(abs(values - low)) <= below + 1e-12
        assert min(abs(values - high)) <= above + 1e-12
        assert low >= -5 - 1e-12
        assert high <= 9 + 1e-12
    assert (low, high) == pytest.approx((-5, 9), abs=1e-9)


def test_bad_lanczos_input_is_refused() -> None:
    one = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"steps = 0: must lie in \[1, inf\)"):
        L.lanczos(product(np.eye(2)), one, 0)
    for start in (0 * one, one / 0):
        with pytest.raises(ValueError, match=r"start: its length is (0|inf): must lie in \(0, inf\)"):
            L.lanczos(product(np.eye(2)), start, 1)
    with pytest.raises(CurvebenchError, match="lanczos: the product with the vector of step 1 is not finite"):
        L.lanczos(lambda v: v * float("nan"), one, 2)
    with pytest.raises(ValueError, match="starts: there is none"):
        L.spectrum(product(np.eye(2)), [], 1)
    with pytest.raises(ValueError, match=r"width = 0: must lie in \(0, inf\)"):
        L.spectrum(product(np.eye(2)), [one], 1).density(one, 0)


def test_kernels_leave_no_graph_and_work_on_every_device(device: str) -> None:
    p = torch.randn(6, device=device, requires_grad=True)
    gradient = differentiate([(p**4).sum()], [p], create_graph=True)
    apply = on_vectors(lambda v: hessian_vector_product(gradient, [p], v), [p])
    z = torch.ones(6, device=device)
    found = T.hutchinson_diagonal(apply, [z])
    torch.testing.assert_close(found.value, 12 * p.detach() ** 2)
    assert not found.value.requires_grad
    assert not L.lanczos(apply, z, 3).basis.requires_grad
