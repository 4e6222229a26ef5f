"""Transport duals, linear systems, LQR, Koopman matrices, policy evaluation, grokking: what is known about each."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.linalg import eigvalsh, toeplitz
from scipy.sparse.linalg import LinearOperator, cg

from curvebench import cards
from curvebench.procedures.certify import derivatives
from curvebench.procedures.certify.lab import Run
from curvebench.spec import Query
from curvebench.tasks import grokking, koopman, linear_systems, lqr, policy_evaluation, transport
from curvebench.tasks.problem import Problem

NAMES = [
    "transport-assignment",
    "transport-densities",
    "poisson-system",
    "riesz-system",
    "lqr",
    "koopman",
    "policy-evaluation",
    "grokking",
]
SMALL: dict[str, dict[str, Any]] = {"riesz-system": {"d": 32}, "poisson-system": {"side": 6}, "grokking": {"p": 7}}


def problem(name: str, **options: Any) -> Problem:
    card = cards.task(name)
    scale = card.at("quick")
    module = importlib.import_module(card.module)
    found: Problem = module.problem(card, replace(scale, options={**scale.options, **options}), 0)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_jax_agree_on_loss_gradient_and_products(name: str) -> None:
    assert derivatives.twin_error(problem(name, **SMALL.get(name, {})), products=True) < 1e-10


@pytest.mark.parametrize(("kind", "eta"), [("assignment", 100.0), ("densities", 1200.0)])
def test_a_plan_proves_that_no_potentials_are_below_the_value_on_the_card(kind: str, eta: float) -> None:
    at = transport.instance(kind, 200)
    card = cards.task(f"transport-{kind}")
    found = transport.solve(at, eta)
    assert card.optimum is not None
    assert abs(found.value - found.bound) < 1e-15
    assert abs(found.value - card.optimum.value) <= card.optimum.tolerance
    masses = np.exp(eta * (found.u[:, None] + found.v - at.cost))
    assert np.abs(masses.sum(axis=1) - at.a).sum() < 1e-13
    assert np.abs(masses.sum(axis=0) - at.b).sum() < 1e-13
    ask = derivatives.Asker(problem(card.name))
    there = {"u": found.u + 0.3, "v": found.v - 0.3}
    assert ask(Query.LOSS, there)[0] == pytest.approx(card.optimum.value, abs=1e-14)
    assert np.linalg.norm(ask(Query.GRADIENT, there)) < 1e-13
    flat = {"u": np.full(200, 0.05), "v": np.full(200, -0.05)}
    assert np.linalg.norm(ask(Query.HVP, there, flat)) < 1e-10, "one direction changes nothing"


def test_every_feasible_plan_is_a_bound_and_bad_plans_are_bad_bounds() -> None:
    at = transport.instance("densities", 40)
    rng = np.random.default_rng(0)
    best = transport.solve(at, 200.0).value
    for _ in range(10):
        assert transport.lower_bound(at, 200.0, rng.uniform(0.1, 1, (40, 40))) < best
        u, v = 0.01 * rng.standard_normal((2, 40))
        assert transport.value(at, 200.0, u, v) > best


def test_the_tasks_objective_is_the_dual_in_numpy() -> None:
    found = problem("transport-densities", n=30, eta=50.0)
    at, p = transport.instance("densities", 30), found.parameters
    loss = derivatives.Asker(found)(Query.LOSS, p)[0]
    assert loss == pytest.approx(transport.value(at, 50.0, p["u"], p["v"]), rel=1e-13)


def test_the_sine_transform_solves_the_laplacian_and_cg_takes_as_long_as_specified() -> None:
    """Iterations to a relative residual of 1e-4 with random right-hand sides: 68 and 123 at sides 32 and 64."""
    for side, expected in ((32, 68), (64, 123)):
        x = linear_systems.poisson(side, 2)
        laplacian = 4 * x
        for axis in (0, 1):
            for shift in (1, -1):
                rolled = np.roll(x, shift, axis)
                np.moveaxis(rolled, axis, 0)[0 if shift == 1 else -1] = 0
                laplacian = laplacian - rolled
        assert np.sum(x * laplacian) / 2 == pytest.approx(1, rel=1e-10)
        edges = linear_systems.edges(np, x)
        assert edges @ edges / 2 == pytest.approx(1, rel=1e-10)

        def apply(v: np.ndarray, side: int = side) -> np.ndarray:
            padded = np.pad(v.reshape(side, side), 1)
            inner = padded[1:-1, 1:-1]
            out = 4 * inner - padded[2:, 1:-1] - padded[:-2, 1:-1] - padded[1:-1, 2:] - padded[1:-1, :-2]
            return np.asarray(out.reshape(-1))

        assert apply(x.reshape(-1)) == pytest.approx(laplacian.reshape(-1), abs=1e-12)
        counts: list[int] = []
        operator = LinearOperator((side**2, side**2), matvec=apply, dtype=np.float64)
        cg(operator, laplacian.reshape(-1), rtol=1e-4, callback=counts.append)
        assert len(counts) == pytest.approx(expected, rel=0.1), "another draw of b"


def test_the_riesz_matrix_has_its_coefficients_and_its_condition_grows_with_the_order() -> None:
    from scipy.special import gamma

    column = linear_systems.fractional(6, 1.5)
    k = np.arange(6)
    assert column == pytest.approx((-1.0) ** k * gamma(2.5) / (gamma(1.75 - k) * gamma(1.75 + k)), rel=1e-12)
    for alpha in (1.2, 1.5, 1.8):
        conditions = []
        for d in (128, 512):
            eigenvalues = eigvalsh(toeplitz(linear_systems.fractional(d, alpha)))
            assert eigenvalues[0] > 0
            conditions.append(eigenvalues[-1] / eigenvalues[0])
        assert np.log(conditions[1] / conditions[0]) / np.log(4) == pytest.approx(alpha, abs=0.05)
    root, x = linear_systems.riesz(64, 1.5)
    assert root.T @ root == pytest.approx(toeplitz(linear_systems.fractional(64, 1.5)), abs=1e-12)
    assert np.sum((root @ x) ** 2) / 2 == pytest.approx(1, rel=1e-10)


def test_riccatis_gain_is_the_least_and_an_unstable_policy_costs_more_than_it() -> None:
    at = problem("lqr")
    a, b = lqr.system(4, 2, 0.95)
    gain, least, residual = lqr.optimal(a, b, 0.1)
    assert residual < 1e-13
    assert at.optimum == least
    ask = derivatives.Asker(at)
    assert ask(Query.LOSS, {"gain": gain})[0] == pytest.approx(least, rel=1e-13)
    assert np.linalg.norm(ask(Query.GRADIENT, {"gain": gain})) < 1e-12
    rng = np.random.default_rng(0)
    for size in (0.01, 0.3, 3.0):
        value = ask(Query.LOSS, {"gain": gain + size * rng.standard_normal((2, 4))})[0]
        assert not value <= least, "larger, infinite or no number"
    from scipy.linalg import solve_discrete_lyapunov

    closed = a - b @ at.parameters["gain"]
    stage = np.eye(4) + at.parameters["gain"].T @ at.parameters["gain"]
    exact = np.sum(solve_discrete_lyapunov(closed.T, stage) * (np.eye(4) + 0.01 * b @ b.T)) + 2 * 0.01
    assert ask(Query.LOSS, at.parameters)[0] == pytest.approx(exact, rel=1e-12)


def test_gauss_newton_policy_gradient_with_half_a_step_is_policy_iteration() -> None:
    """K - (R + B'PB)^-1 grad Sigma^-1 / 2 is the greedy policy; it converges quadratically to Riccati's."""
    a, b = lqr.system(4, 2, 0.95)
    best = lqr.optimal(a, b, 0.1)[0]
    gain, errors = np.zeros((2, 4)), []
    for _ in range(6):
        p = lqr.cost_to_go(np.eye(4) + gain.T @ gain, a - b @ gain)
        sigma = lqr.cost_to_go(np.eye(4) + 0.01 * b @ b.T, (a - b @ gain).T)
        ask = derivatives.Asker(problem("lqr"))
        gradient = ask(Query.GRADIENT, {"gain": gain}).reshape(2, 4)
        inner = np.eye(2) + b.T @ p @ b
        step = np.linalg.solve(inner, gradient) @ np.linalg.inv(sigma) / 2
        assert gain - step == pytest.approx(np.linalg.solve(inner, b.T @ p @ a), abs=1e-10)
        gain = gain - step
        errors.append(np.linalg.norm(gain - best))
    assert errors[1] < 0.2 * errors[0]
    assert errors[3] < 1e-6
    assert errors[-1] < 1e-12


def test_edmd_finds_the_exact_eigenvalues() -> None:
    for degree in (2, 4):
        at = problem("koopman", degree=degree)
        matrix = np.linalg.lstsq(at.train.inputs, at.train.targets)[0].T
        found = np.sort(np.linalg.eigvals(matrix).real)[::-1]
        assert found == pytest.approx(koopman.eigenvalues(degree), abs=1e-10)
        assert derivatives.Asker(at)(Query.LOSS, {"0.weight": matrix})[0] < 1e-26
    assert koopman.monomials(2) == [(1, 0), (2, 0), (0, 1)]
    h = 1e-6  # the flow solves its equation
    x = np.array([[0.3, -0.7]])
    before = koopman.DT
    try:
        koopman.DT = h
        slope = (koopman.flow(x) - x) / h
    finally:
        koopman.DT = before
    assert slope == pytest.approx(np.array([[koopman.MU * 0.3, koopman.LAMBDA * (-0.7 - 0.09)]]), rel=1e-5)


def test_lstd_finds_the_value_function_and_the_temporal_differences_alone_do_not() -> None:
    seen = policy_evaluation.transitions(200_000, 2)
    rows, targets = policy_evaluation.bellman(seen)
    lstd = np.linalg.solve(rows, targets)
    truth = policy_evaluation.truth(2)
    biased = policy_evaluation.residual_minimiser(seen)
    assert np.linalg.norm(lstd - truth) < 0.02
    assert np.linalg.norm(biased - truth) > 0.1
    at = problem("policy-evaluation", n=200_000, degree=2)
    assert derivatives.Asker(at)(Query.LOSS, {"0.weight": lstd[None]})[0] < 1e-28


def test_the_value_function_solves_bellmans_equation() -> None:
    """``V(x) = r(x) + g E V(x')`` with the Gaussian mean of ``V(x')`` in closed form."""
    p = policy_evaluation
    x = np.linspace(-2, 2, 7)
    spread, decay = p.S**2 / (2 * p.K), np.exp(-p.K * p.DT)
    constant, square = p.truth(2)[0], p.truth(2)[2] / spread
    later = square * (decay**2 * x**2 + spread * (1 - decay**2)) + constant
    fast, slow = ((1 - np.exp(-rate * p.DT)) / rate for rate in (p.B + 2 * p.K, p.B))
    reward = -(x**2 - spread) * fast - spread * slow
    assert square * x**2 + constant == pytest.approx(reward + np.exp(-p.B * p.DT) * later, abs=1e-14)


def test_pairs_are_all_pairs_once_and_their_labels_are_sums() -> None:
    parts = grokking.pairs(7, 0.4)
    assert [len(part) for part in parts] == [20, 14, 15]
    rows = np.concatenate([part.inputs for part in parts])
    assert len(np.unique(rows, axis=0)) == 49
    for part in parts:
        a, b = part.inputs[:, :7].argmax(1), part.inputs[:, 7:].argmax(1)
        assert np.array_equal((a + b) % 7, part.targets)
    assert not np.array_equal(parts[0].targets, np.sort(parts[0].targets))


def test_softmax_collapse_is_counted_where_the_loss_is_exactly_zero() -> None:
    logits = np.array([[0.0, 10.0], [0.0, 20.0], [0.0, 40.0]])
    labels = np.ones(3, dtype=np.int64)
    assert grokking.collapsed(logits.astype(np.float32), labels) == 2
    assert grokking.collapsed(logits, labels) == 1
    assert grokking.collapsed(logits, np.zeros(3, dtype=np.int64)) == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transport-densities", {"kind": "images"}, "kind = 'images': must be 'assignment' or 'densities'"),
        ("transport-densities", {"eta": 0.0}, "eta = 0.0: must be positive"),
        ("transport-densities", {"n": 1}, "n = 1: must be at least 2"),
        ("poisson-system", {"side": 1}, "side = 1, dimensions = 2: need side >= 2"),
        ("poisson-system", {"system": "stokes"}, "system = 'stokes': must be 'poisson' or 'riesz'"),
        ("riesz-system", {"alpha": 2.0}, "alpha = 2.0: need d >= 2 and 1 < alpha < 2"),
        ("lqr", {"radius": 1.0}, "radius = 1.0: need 1 <= m <= n and 0 < radius < 1"),
        ("koopman", {"degree": 1}, "degree = 1: need degree >= 2"),
        ("policy-evaluation", {"degree": 1}, "degree = 1: need degree >= 2"),
        ("grokking", {"share": 1.0}, "share = 1.0: need p >= 2"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problem(name, **options)


FAST: dict[str, tuple[str, int]] = {
    "transport-assignment": ("lbfgs", 60),
    "poisson-system": ("conjugate-gradient", 90),
    "riesz-system": ("conjugate-gradient", 300),
    "lqr": ("newton", 15),
    "koopman": ("lbfgs", 200),
    "policy-evaluation": ("lbfgs", 80),
}


@pytest.mark.parametrize("name", sorted(FAST))
def test_curvature_gets_below_the_target_and_nothing_below_the_minimum(name: str) -> None:
    method, steps = FAST[name]
    run = Run(problem(name), method)
    run.steps(steps)
    gap = run.metric()
    assert -1e-12 < gap < cards.task(name).at("quick").target


@pytest.mark.parametrize("name", ["poisson-system", "riesz-system", "transport-densities"])
@pytest.mark.parametrize(("method", "given"), [("sgd", {"lr": 1e-3}), ("lbfgs", {})])
def test_first_order_and_quasi_newton_descend(name: str, method: str, given: dict[str, float]) -> None:
    """L-BFGS looks at gradients as flat views: a task whose gradients come transposed would fail it."""
    run = Run(problem(name, **SMALL.get(name, {})), method, **given)
    before = run.metric()
    run.steps(5)
    assert 0 <= run.metric() < before
