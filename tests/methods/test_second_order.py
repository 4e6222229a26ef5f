"""Newton, Levenberg-Marquardt, conjugate gradients, Hessian-free and GNS, alone: identities, references, bad input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nets import F64, Net, leaf
from torch import Tensor, nn

from curvebench.data.breast_cancer import load_breast_cancer
from curvebench.kernels import reference_newton as reference
from curvebench.methods.conjugate_gradient_torch import ConjugateGradient
from curvebench.methods.gns_torch import GNS
from curvebench.methods.hessian_free_torch import HessianFree
from curvebench.methods.joint_torch import JointOptimizer
from curvebench.methods.levenberg_marquardt_torch import LevenbergMarquardt
from curvebench.methods.newton_torch import DiagonalNewton, Newton
from curvebench.oracle.closure_torch import ClosureOracle
from curvebench.oracle.dense_torch import dense
from curvebench.spec import Query
from curvebench.tasks.logistic import standardise

Closure = Callable[[], Any]
Make = Callable[..., JointOptimizer]


def quadratic(eigenvalues: Any, rotate: bool = True, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Closure]:
    """``x'Hx/2 - b'x``: ``(x, H, the minimiser, closure)``."""
    rng = np.random.default_rng(seed)
    d = len(eigenvalues)
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0] if rotate else np.eye(d)
    H = torch.tensor(Q * np.asarray(eigenvalues) @ Q.T)
    best = torch.tensor(rng.standard_normal(d))
    x = leaf(rng.standard_normal(d))
    return x, H, best, lambda: (x - best) @ H @ (x - best) / 2


# -- matrices from products --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [Query.HVP, Query.GGNVP])
def test_matrices_from_products_equal_functional_derivatives(query: Query) -> None:
    net = Net()
    live = list(net.model.parameters())
    point = ClosureOracle(live, net.closure).at([Query.GRADIENT, query])
    g, M = net.curvature(query)
    products = point.hvps if query is Query.HVP else point.ggnvps
    one = point.hvp if query is Query.HVP else point.ggnvp
    assert np.allclose(torch.cat([p.reshape(-1) for p in point.gradient()]).detach(), g, atol=1e-14)
    assert np.allclose(dense(products, live), M, atol=1e-14)
    v = [torch.randn_like(p) for p in live]
    flat = torch.cat([p.reshape(-1) for p in v]).numpy()
    assert np.allclose(torch.cat([p.reshape(-1) for p in one(v)]).detach(), M @ flat, atol=1e-13)


def test_a_loss_that_does_not_depend_on_a_parameter_has_zero_curvature_there() -> None:
    x, unused = leaf([1.0, 2.0]), leaf([3.0])
    point = ClosureOracle([x, unused], lambda: x.pow(4).sum()).at([Query.GRADIENT, Query.HVP])
    assert torch.equal(dense(point.hvps, [x, unused]), torch.diag(torch.tensor([12.0, 48.0, 0.0], dtype=F64)))


# -- Newton ------------------------------------------------------------------------------------------------------------


def test_newton_minimises_a_quadratic_in_one_step() -> None:
    x, _, best, closure = quadratic(np.logspace(0, -4, 30))
    Newton([x]).step(closure)
    assert torch.allclose(x.detach(), best, atol=1e-9)


@pytest.mark.parametrize("curvature", ["hessian", "absolute"])
def test_newton_equals_its_reference_on_an_indefinite_hessian(curvature: str) -> None:
    net = Net()
    g, H = net.curvature(Query.HVP)
    assert np.linalg.eigvalsh(H).min() < 0
    start = net.vector()
    Newton(net.model.parameters(), lr=0.5, damping=0.3, curvature=curvature).step(net.closure)
    expected = start - 0.5 * reference.newton_direction(H, g, 0.3, absolute=curvature == "absolute")
    assert np.allclose(net.vector(), expected, rtol=1e-9, atol=1e-11)


def test_undamped_newton_does_not_depend_on_the_coordinates() -> None:
    """T3 of the regression family: logistic regression on breast cancer in ``theta = S phi``, cond(S) = 1e3."""
    raw = load_breast_cancer()
    A, y = torch.tensor(standardise(raw.features)), torch.tensor(raw.labels, dtype=F64)
    d = A.shape[1]
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    S = torch.tensor(left * np.logspace(0, -3, d) @ right)

    def run(S: Tensor, make: Make, steps: int) -> list[Tensor]:
        phi = leaf(np.zeros(d))
        opt = make([phi])
        seen = []
        for _ in range(steps):
            opt.step(lambda: -nn.functional.logsigmoid(y * (A @ (S @ phi))).mean() + 5e-4 * (S @ phi).square().sum())
            seen.append(S @ phi.detach())
        return seen

    def apart(make: Make, steps: int) -> float:
        plain, other = run(torch.eye(d, dtype=F64), make, steps), run(S, make, steps)
        return max(float((a - b).norm() / a.norm()) for a, b in zip(plain, other, strict=True))

    assert apart(Newton, 8) < 1e-7
    assert apart(lambda p: Newton(p, damping=1e-2), 3) > 1e-2, "a damped one does"
    assert apart(DiagonalNewton, 3) > 1e-2


def test_diagonal_newton_is_exact_in_aligned_coordinates_and_not_in_rotated_ones() -> None:
    values = np.logspace(0, -4, 100)
    x, _, best, closure = quadratic(values, rotate=False)
    DiagonalNewton([x]).step(closure)
    assert torch.allclose(x.detach(), best, atol=1e-9)
    x, H, best, closure = quadratic(values)
    DiagonalNewton([x], lr=1e-3).step(closure)
    assert float((x.detach() - best).norm()) > 1
    x, H, best, closure = quadratic([1.0, 4.0, -3.0])
    start = x.detach().clone()
    g = H @ (start - best)
    DiagonalNewton([x], damping=0.5, curvature="absolute").step(closure)
    assert torch.allclose(x.detach(), start - g / (H.diagonal().abs() + 0.5), atol=1e-12)


def test_newton_goes_to_a_saddle_and_the_absolute_one_leaves_it() -> None:
    def f(x: Tensor) -> Tensor:
        return x[0] ** 2 - x[1] ** 2 + x[1] ** 4

    ends = {}
    for curvature in ("hessian", "absolute"):
        x = leaf([0.3, 0.1])
        opt = Newton([x], curvature=curvature, damping=1e-3)
        for _ in range(60):
            opt.step(lambda x=x: f(x))
        ends[curvature] = x.detach().clone()
    assert torch.allclose(ends["hessian"], torch.zeros(2, dtype=F64), atol=1e-6)
    assert abs(float(ends["absolute"][1])) == pytest.approx(0.5**0.5, abs=1e-4)


# -- Levenberg-Marquardt -----------------------------------------------------------------------------------------------


def linear_residuals() -> tuple[Tensor, np.ndarray, np.ndarray, Closure]:
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((40, 6)), rng.standard_normal(40)
    x = leaf(rng.standard_normal(6))

    def closure() -> tuple[Tensor, Tensor]:
        residuals = torch.tensor(A) @ x - torch.tensor(b)
        return residuals.square().sum() / 2, residuals

    return x, A, b, closure


def test_levenberg_marquardt_is_gauss_newton_on_linear_residuals() -> None:
    x, A, b, closure = linear_residuals()
    start = x.detach().numpy().copy()
    LevenbergMarquardt([x], damping=1e-13).step(closure)
    assert np.allclose(x.detach(), np.linalg.lstsq(A, b)[0], atol=1e-11)
    x, A, b, closure = linear_residuals()
    LevenbergMarquardt([x], damping=0.7).step(closure)
    expected = start - reference.newton_direction(A.T @ A, A.T @ (A @ start - b), 0.7)
    assert np.allclose(x.detach(), expected, atol=1e-12)


@pytest.mark.parametrize("scaling", ["identity", "diagonal"])
def test_levenberg_marquardt_follows_its_reference(scaling: str) -> None:
    net = Net()
    opt = LevenbergMarquardt(net.model.parameters(), damping=1e-4, scaling=scaling)
    damping, growth = 1e-4, 2.0
    for _ in range(5):
        x = net.vector()
        g, G = net.curvature(Query.GGNVP)
        expected, damping, growth = reference.levenberg_marquardt(
            x, net.at, g, G, damping, growth, tries=10, diagonal=scaling == "diagonal"
        )
        loss = opt.step(net.closure)
        assert float(loss) == pytest.approx(net.at(x), rel=1e-12)
        assert np.allclose(net.vector(), expected, rtol=1e-5, atol=1e-6)
        assert opt.damping == pytest.approx(damping, rel=1e-3)
        assert net.at(net.vector()) < net.at(x)


def rosenbrock_residuals(x: Tensor) -> tuple[Tensor, Tensor]:
    r = torch.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])
    return r.square().sum() / 2, r


def test_levenberg_marquardt_solves_rosenbrock_and_never_goes_up() -> None:
    x = leaf([-2.0, 2.0])
    opt = LevenbergMarquardt([x])
    losses = [float(opt.step(lambda: rosenbrock_residuals(x))) for _ in range(40)]
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < 1e-20


def test_a_step_that_nothing_improves_leaves_the_parameters_and_raises_the_damping() -> None:
    x = leaf([0.3, -0.2])
    opt = LevenbergMarquardt([x], max_tries=3)

    def closure() -> tuple[Tensor, Tensor]:  # every evaluation is worse than the one before
        closure.calls += 1  # type: ignore[attr-defined]
        return x.square().sum() + closure.calls, x * 1.0  # type: ignore[attr-defined]

    closure.calls = 0  # type: ignore[attr-defined]
    opt.step(closure)
    assert x.detach().tolist() == [0.3, -0.2]
    assert opt.damping == pytest.approx(1e-3 * 2 * 4 * 8)


# -- conjugate gradients -----------------------------------------------------------------------------------------------


def test_conjugate_gradients_are_exact_on_a_quadratic_after_n_steps_and_equal_the_linear_ones() -> None:
    x, H, best, closure = quadratic(np.linspace(1, 5, 8))
    start = x.detach().clone()
    opt = ConjugateGradient([x])
    for k in range(1, 9):
        opt.step(closure)
        residual = (H @ (best - start)).numpy()
        expected = start.numpy() + reference.conjugate_gradient(H.numpy(), residual, k)
        assert np.allclose(x.detach(), expected, atol=1e-11)
        assert (float((x.detach() - best).norm()) < 1e-10) == (k == 8)


def test_conjugate_gradients_on_the_quadratic_of_100_dimensions() -> None:
    """T1 of the regression family: rounding spoils conjugacy, in linear CG as well; a history mends it."""

    def reached(history: int) -> float:
        x, H, best, closure = quadratic(np.logspace(0, -4, 100))
        start, first = x.detach().clone(), float(closure().detach())
        opt = ConjugateGradient([x], history=history)
        for _ in range(100):
            opt.step(closure)
        linear = reference.conjugate_gradient(H.numpy(), (H @ (best - start)).numpy(), 100)
        error = start.numpy() + linear - best.numpy()
        assert 1e-7 < error @ H.numpy() @ error / 2 / first < 1e-5, "linear CG has not ended either"
        return float(closure().detach()) / first

    assert 1e-7 < reached(0) < 1e-5
    assert reached(100) < 1e-20


def test_nonlinear_conjugate_gradients_descend_and_solve_rosenbrock() -> None:
    x = leaf([-2.0, 2.0])
    opt = ConjugateGradient([x])
    losses = [float(opt.step(lambda: rosenbrock_residuals(x)[0])) for _ in range(150)]
    assert all(b <= a + 1e-14 for a, b in itertools.pairwise(losses))
    assert losses[-1] < 1e-10


def test_conjugate_gradients_pass_through_negative_curvature_and_restart_on_request() -> None:
    x = leaf([0.1])
    opt = ConjugateGradient([x])
    for _ in range(30):
        opt.step(lambda: x.pow(4).sum() - x.square().sum())
    assert float(x.detach()) == pytest.approx(0.5**0.5, abs=1e-6)
    x, H, best, closure = quadratic([1.0, 3.0, 9.0])
    opt = ConjugateGradient([x], restart=1)  # steepest descent with exact steps
    for _ in range(4):
        g = H @ (x.detach() - best)
        expected = x.detach() - (g @ g) / (g @ H @ g) * g
        opt.step(closure)
        assert torch.allclose(x.detach(), expected, atol=1e-12)


# -- Hessian-free ------------------------------------------------------------------------------------------------------


def test_hessian_free_direction_is_the_dense_damped_solve() -> None:
    net = Net()
    g, G = net.curvature(Query.GGNVP)
    opt = HessianFree(net.model.parameters(), damping=0.05, cg_steps=60, tolerance=0.0)
    opt.step(net.closure)
    direction = opt.vector("direction")
    assert direction is not None
    assert np.allclose(direction, -reference.newton_direction(G, g, 0.05), atol=1e-9)


def test_hessian_free_damping_follows_the_gain() -> None:
    net = Net()
    opt = HessianFree(net.model.parameters(), damping=10.0)
    opt.step(net.closure)
    assert opt.damping == pytest.approx(10 * 2 / 3), "much damping: the model can be trusted"
    x, _, _, closure = linear_residuals()
    far = HessianFree([x], damping=1.0, tolerance=0.0)

    def misleading() -> tuple[Tensor, Tensor]:  # the loss rises away from where it is differentiated
        loss, residuals = closure()
        return loss + (0.0 if loss.requires_grad else 1e6), residuals

    start = x.detach().clone()
    far.step(misleading)
    assert far.damping == pytest.approx(1.5)
    assert torch.equal(x.detach(), start), "and no step length helps"


def test_hessian_free_trains_a_network_without_a_matrix() -> None:
    net = Net()
    opt = HessianFree(net.model.parameters())
    losses = [float(opt.step(net.closure)) for _ in range(25)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses))


# -- GNS ---------------------------------------------------------------------------------------------------------------


def steps_to(f: Callable[[Tensor], Tensor], start: Any, optimum: float = 0.0, most: int = 200, **given: Any) -> int:
    """Steps until ``f - f* < 1e-8``, each no longer than the gamma it was accepted with."""
    x = leaf(start)
    opt = GNS([x], **given)
    for k in range(most):
        before, value = x.detach().clone(), float(f(x).detach())
        if value - optimum < 1e-8:
            return k
        opt.step(lambda: f(x))
        h = x.detach() - before
        B = torch.eye(len(h), dtype=F64) if opt.metric is None else opt.metric
        assert float(h @ B @ h) ** 0.5 <= opt.gamma / 2 * (1 + 1e-9), "gamma was doubled after the step"
        assert float(f(x).detach()) <= value
    raise AssertionError("not in time")


def test_gns_takes_as_many_steps_as_the_authors_code() -> None:
    """Counts of the official code, rerun (curvature-methods.md, 4.1); instances as its notebook draws them."""

    def rosenbrock(x: Tensor) -> Tensor:
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    assert steps_to(rosenbrock, [-2.0, 2.0]) == 51

    draw = np.random.RandomState(3124)
    A, b = draw.rand(100, 200) * 2 - 1, draw.rand(100) * 2 - 1
    rows, shift = torch.tensor(A), torch.tensor(b)
    B = rows.T @ rows + 1e-8 * torch.eye(200, dtype=F64)
    assert steps_to(lambda x: (rows @ x - shift).square().sum() ** 2 / 4, np.ones(200), metric=(B + B.T) / 2) == 27

    draw = np.random.RandomState(3124)
    A, b = draw.rand(200, 200) * 2 - 1, draw.rand(200) * 2 - 1
    shift = torch.tensor(b)
    centred = torch.tensor(A.T) - torch.tensor(A) @ torch.softmax(-shift, 0)  # the gradient at zero is zero
    best = float(torch.logsumexp(-shift, 0))
    B = torch.tensor(A @ A.T)
    assert steps_to(lambda x: torch.logsumexp(centred @ x - shift, 0), np.ones(200), best, metric=(B + B.T) / 2) == 18


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_gns_follows_its_reference(curvature: str) -> None:
    net = Net()
    query = Query.HVP if curvature == "hessian" else Query.GGNVP
    opt, gamma = GNS(net.model.parameters(), gamma=4.0, curvature=curvature), 4.0

    def gradient(v: np.ndarray) -> np.ndarray:
        other = Net()
        nn.utils.vector_to_parameters(torch.tensor(v), other.model.parameters())
        return other.curvature(query)[0]

    for _ in range(4):
        x = net.vector()
        expected, gamma = reference.gns_step(x, net.at, gradient, net.curvature(query)[1], gamma)
        opt.step(net.closure)
        assert np.allclose(net.vector(), expected, rtol=1e-6, atol=1e-7)
        assert opt.gamma == gamma


def test_gns_halves_gamma_where_the_factorisation_fails_instead_of_using_an_old_step() -> None:
    x = leaf([0.1])

    def f() -> Tensor:  # H = -20 at zero: not positive definite with the first lambdas
        return 25 * x.pow(4).sum() - 10 * x.square().sum()

    opt = GNS([x], gamma=64.0)
    before = float(f().detach())
    opt.step(f)
    assert float(f().detach()) < before
    assert opt.gamma < 64
    assert torch.isfinite(x).all()


def test_gns_past_convergence_keeps_gamma_finite_and_the_parameters() -> None:
    x, _, best, closure = quadratic([1.0, 2.0])
    opt = GNS([x])
    for _ in range(60):
        opt.step(closure)
    assert opt.gamma >= 1e-9
    assert torch.allclose(x.detach(), best, atol=1e-7)
