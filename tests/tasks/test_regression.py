"""The regression family: every offered query against differences, torch against jax, minima with their certificates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from curvebench import cards
from curvebench.data.breast_cancer import load_breast_cancer
from curvebench.procedures import certify
from curvebench.procedures.certify import derivatives
from curvebench.tasks import free_features, markets, matrix_sensing, relu_certificate, softmax
from curvebench.tasks.logistic import standardise, transformation
from curvebench.tasks.problem import Problem

NAMES = certify.regression()
KINKED = {"teacher-student-relu", "relu-certified", "hedging-entropic", "hedging-heston"}


def problem(name: str, seed_block: int = 0, **options: Any) -> Problem:
    """The quick task, with options of the test's own."""
    import importlib

    card = cards.task(name)
    scale = card.at("quick")
    module = importlib.import_module(card.module)
    found: Problem = module.problem(card, replace(scale, options={**scale.options, **options}), seed_block)
    return found


SMALL: dict[str, dict[str, Any]] = {
    "hedging-entropic": {"steps": 3, "paths": 40, "held_out": 40},
    "hedging-heston": {"steps": 3, "paths": 40, "held_out": 40},
    "hedging-black-scholes": {"steps": 3, "paths": 40, "held_out": 40},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_offered_query_agrees_with_central_differences(name: str) -> None:
    found = derivatives.errors(problem(name, **SMALL.get(name, {})), cards.task(name).offers)
    assert found
    worst = max(found, key=lambda query: found[query])
    assert found[worst] < 1e-6, worst


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_jax_start_from_the_same_loss_and_gradient(name: str) -> None:
    assert derivatives.twin_error(problem(name, **SMALL.get(name, {}))) < 1e-12


def test_a_wrong_gradient_is_found() -> None:
    """The check itself: a criterion whose reported gradient is not its own fails it."""
    import torch

    from curvebench.tasks import runtime_torch

    class Wrong(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(outputs: Any) -> Any:
            return outputs.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return 1.001 * gradient

        @staticmethod
        def jvp(ctx: Any, tangent: Any) -> Any:
            return tangent.clone()

    right = runtime_torch.CRITERIA["squared"]
    base = problem("least-squares")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(runtime_torch.CRITERIA, "squared", lambda o, y: right(Wrong.apply(o), y))
        found = derivatives.errors(base, (tiny.Query.GRADIENT, tiny.Query.JVP))
    assert found["gradient"] > 1e-5
    assert found["jvp"] > 1e-5
    assert max(derivatives.errors(base, (tiny.Query.GRADIENT, tiny.Query.JVP)).values()) < 1e-9


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("least-squares", "logistic-breast-cancer")])
def test_the_start_follows_from_the_seed_block_and_the_data_do_not(name: str) -> None:
    options = SMALL.get(name, {})
    first, again, other = (problem(name, block, **options) for block in (0, 0, 1))
    assert all(np.array_equal(first.parameters[n], again.parameters[n]) for n in first.parameters)
    if name not in (
        "least-squares-ill",
        "least-squares-mild",
        "softmax-digits",
        "softmax-wine",
    ):  # these start from the origin
        assert any(not np.array_equal(first.parameters[n], other.parameters[n]) for n in first.parameters)
    assert np.array_equal(first.train.inputs, other.train.inputs)


@pytest.mark.parametrize("name", [n for n in NAMES if cards.task(n).optimum is not None])
def test_the_optimum_on_the_card_is_the_problems(name: str) -> None:
    card = cards.task(name)
    assert card.optimum is not None
    found = problem(name).optimum
    assert found is not None
    assert abs(found - card.optimum.value) <= max(card.optimum.tolerance, 1e-15)


def test_the_rotated_quadratic_is_the_aligned_one_seen_from_elsewhere() -> None:
    aligned, rotated = problem("quadratic-aligned"), problem("quadratic-rotated")
    q = np.linalg.lstsq(aligned.train.inputs, rotated.train.inputs, rcond=None)[0].T
    assert np.allclose(q @ q.T, np.eye(100), atol=1e-7)
    assert np.allclose(q @ aligned.parameters["0.weight"][0], rotated.parameters["0.weight"][0], atol=1e-6)
    hessian = aligned.train.inputs.T @ aligned.train.inputs / 100
    assert np.allclose(np.diag(hessian), np.logspace(0, -4, 100))
    assert np.abs(hessian - np.diag(np.diag(hessian))).max() < 1e-15


def test_the_noisy_quadratic_has_deepobs_spectrum_and_its_minimum_at_the_mean() -> None:
    found = problem("quadratic-noisy")
    ask = derivatives.Asker(replace(found, batch=None))
    mean = found.train.inputs.mean(axis=0)
    assert ask(tiny.Query.LOSS, {"x": mean})[0] == pytest.approx(found.optimum, rel=1e-12)
    assert np.linalg.norm(ask(tiny.Query.GRADIENT, {"x": mean})) < 1e-9
    hessian = np.stack([ask(tiny.Query.HVP, {"x": mean}, {"x": e}) for e in np.eye(100)])
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert np.sum((eigenvalues > 0) & (eigenvalues < 1)) == 90
    assert np.sum((eigenvalues > 30) & (eigenvalues < 60)) == 10


def test_other_coordinates_are_the_same_function() -> None:
    plain, other = problem("logistic-reparametrised", coordinates=1.0), problem("logistic-reparametrised")
    s = transformation(31, 1000.0)
    assert np.linalg.cond(s) == pytest.approx(1000.0, rel=1e-6)
    w = transformation(31, 1.0) @ plain.parameters["phi"]
    assert np.allclose(s @ other.parameters["phi"], w, atol=1e-12)
    raw = load_breast_cancer()
    x = standardise(raw.features)
    expected = np.mean(np.logaddexp(0, -raw.labels * (x @ w))) + 5e-4 * w @ w
    for one in (plain, other):
        assert derivatives.Asker(one)(tiny.Query.LOSS, one.parameters)[0] == pytest.approx(expected, rel=1e-12)


def test_softmax_has_the_minimum_on_its_card_and_one_curvature_matrix() -> None:
    x, y = softmax.table("digits")
    card = cards.task("softmax-digits")
    w, value, norm = softmax.minimise(x, y, 1e-3)
    assert norm < 1e-13
    assert card.optimum is not None
    assert abs(value - card.optimum.value) < 1e-14
    assert value == pytest.approx(0.263925823295, abs=1e-12), "the specification's"
    p = np.exp(x[:50] @ w.T)
    p /= p.sum(axis=1, keepdims=True)
    found = problem("softmax-digits")
    ask = derivatives.Asker(replace(found, train=type(found.train)(x[:50], y[:50])))
    v = derivatives.direction(found, 5)
    truth = softmax.fisher(x[:50], p) @ v["0.weight"].reshape(-1) + 1e-3 * v["0.weight"].reshape(-1)
    for query in (tiny.Query.HVP, tiny.Query.GGNVP):
        assert np.linalg.norm(ask(query, {"0.weight": w}, v) - truth) < 1e-12


def test_the_wine_minimum_is_on_its_card() -> None:
    card = cards.task("softmax-wine")
    _, value, norm = softmax.minimise(*softmax.table("wine"), 1e-3)
    assert norm < 1e-14
    assert card.optimum is not None
    assert abs(value - card.optimum.value) < 1e-14


def test_the_bilevel_minimum_is_the_specifications() -> None:
    from scipy.optimize import minimize_scalar

    from curvebench.tasks import bilevel_ridge

    best = minimize_scalar(bilevel_ridge.value, bounds=(-4, 0), method="bounded", options={"xatol": 1e-9})
    assert best.x == pytest.approx(-2.068773, abs=1e-4)
    assert best.fun == pytest.approx(0.24309788, abs=5e-9)
    card = cards.task("bilevel-ridge")
    assert card.optimum is not None
    assert abs(best.fun - card.optimum.value) < 1e-12
    assert min(bilevel_ridge.value(at) for at in np.linspace(-12, 6, 40)) >= card.optimum.value
    found = problem("bilevel-ridge")
    at = {"log_regulariser": np.array([-1.0])}
    assert derivatives.Asker(found)(tiny.Query.LOSS, at)[0] == pytest.approx(bilevel_ridge.value(-1.0), rel=1e-12)


def test_the_mixtures_score_is_the_gradient_of_its_log_density() -> None:
    from curvebench.tasks import score_matching

    means, x, h = score_matching.centres(5), np.random.default_rng(0).standard_normal((6, 2)), 1e-5

    def log_density(at: np.ndarray) -> np.ndarray:
        return np.log(np.exp(-np.sum((at[:, None] - means) ** 2, axis=2) / (2 * 0.35)).sum(axis=1))

    slopes = [(log_density(x + h * e) - log_density(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.allclose(np.stack(slopes, axis=1), score_matching.score(x, means, 0.5), atol=1e-8)
    train = problem("score-matching").train
    noise = -0.5 * train.targets
    assert noise.std() == pytest.approx(1.0, abs=0.05)


def test_the_origin_minimises_log_sum_exp() -> None:
    found = problem("log-sum-exp")
    ask = derivatives.Asker(found)
    zero = {"x": np.zeros(200)}
    assert np.linalg.norm(ask(tiny.Query.GRADIENT, zero)) < 1e-14
    assert ask(tiny.Query.LOSS, zero)[0] == pytest.approx(found.optimum, rel=1e-14)


@pytest.mark.parametrize("name", ["rosenbrock", "chebyshev-chain"])
def test_the_valleys_end_at_ones(name: str) -> None:
    found = problem(name)
    ask = derivatives.Asker(found)
    ones = {"x": np.ones(found.dimension)}
    assert ask(tiny.Query.LOSS, ones)[0] == 0
    assert np.abs(ask(tiny.Query.GRADIENT, ones)).max() == 0


def test_matrix_sensing_recovers_a_matrix_that_fits_and_measures_the_error() -> None:
    found = problem("matrix-sensing-over")
    truth = matrix_sensing.low_rank(30, 2)
    values, vectors = np.linalg.eigh(truth)
    assert values[-2:] == pytest.approx([0.5, 1.0])
    x = np.zeros((30, 6))
    x[:, :2] = vectors[:, -2:] * np.sqrt(values[-2:])
    assert derivatives.Asker(found)(tiny.Query.LOSS, {"x": x})[0] < 1e-28
    assert matrix_sensing.recovery({"x": x}, truth) < 1e-28
    a = matrix_sensing.measurements(30, 600, True)
    residual = np.einsum("mij,ij->m", a, found.parameters["x"] @ found.parameters["x"].T - truth)
    ask = derivatives.Asker(found)
    assert ask(tiny.Query.LOSS, found.parameters)[0] == pytest.approx(np.sum(residual**2) / 4, rel=1e-12)


@pytest.mark.parametrize(("name", "factors"), [("free-features", 2), ("deep-free-features", 3)])
def test_free_features_attain_their_closed_form_at_the_collapsed_solution(name: str, factors: int) -> None:
    """Balanced factors of the thresholded singular values have the value on the card, and no gradient."""
    found = problem(name)
    top, n, l2 = np.sqrt(20), 200, 1e-3
    s = top
    for _ in range(200):
        s = top - n * l2 * s ** (2 / factors - 1)
    frame = np.eye(16)[:, :10]
    each = s ** (1 / factors)
    h = each * frame @ np.repeat(np.eye(10), 20, axis=1) / top
    weights = [h, *[each * frame @ frame.T] * (factors - 2), each * frame.T]
    at = dict(zip(found.parameters, weights, strict=True))
    ask = derivatives.Asker(found)
    assert ask(tiny.Query.LOSS, at)[0] == pytest.approx(found.optimum, rel=1e-12)
    assert np.linalg.norm(ask(tiny.Query.GRADIENT, at)) < 1e-14
    distances = free_features.collapse(h, weights[-1], 10)
    assert max(distances) < 1e-7
    if factors == 2:
        assert found.optimum == pytest.approx(0.04372136, abs=5e-9), "the specification's"


def test_neural_collapse_sees_what_is_not_collapsed() -> None:
    rng = np.random.default_rng(0)
    distances = free_features.collapse(rng.standard_normal((16, 200)), rng.standard_normal((10, 16)), 10)
    assert min(distances) > 0.1


def test_the_relu_certificate_closes_and_its_value_is_on_the_card() -> None:
    card = cards.task("relu-certified")
    x, y = relu_certificate.data(12, float(card.options["noise"]))
    beta = float(card.options["beta"])
    found = relu_certificate.certify(x, y, beta)
    assert card.optimum is not None
    assert 0 <= found.upper - found.lower <= card.optimum.tolerance
    assert found.lower - 1e-15 <= card.optimum.value <= found.upper + 1e-12
    assert found.units <= int(card.options["units"])


def test_the_extreme_direction_beats_a_fine_grid_and_the_bound_is_feasible() -> None:
    x, y = relu_certificate.data(12, 0.3)
    angles = np.linspace(0, 2 * np.pi, 100_001)
    grid = np.abs(y @ np.maximum(x @ np.stack([np.cos(angles), np.sin(angles)]), 0)).max()
    found = relu_certificate.extreme(x, y)
    assert grid - 1e-12 <= found.value <= grid * (1 + 1e-7)
    assert np.linalg.norm(found.direction) == pytest.approx(1)
    rng = np.random.default_rng(0)
    for _ in range(20):  # weak duality: no network is below the bound
        w, a = rng.standard_normal((5, 2)), rng.standard_normal(5)
        value = 0.5 * np.sum((np.maximum(x @ w.T, 0) @ a - y) ** 2) + 0.005 * (np.sum(w**2) + np.sum(a**2))
        assert value >= relu_certificate.lower_bound(x, y, rng.standard_normal(12), 1e-2)


def test_the_autoencoders_floor_is_the_pixels_entropy() -> None:
    found = problem("digits-autoencoder")
    x = found.train.inputs
    inside = np.clip(x, 1e-12, 1 - 1e-12)
    logits = np.log(inside / (1 - inside))
    loss = np.mean(np.sum(np.logaddexp(0, logits) - x * logits, axis=1))
    assert loss == pytest.approx(found.optimum, abs=1e-6)


def test_the_forward_laplacian_is_the_trace_of_the_hessian() -> None:
    from jax import numpy as jnp

    from curvebench.tasks.pinn import network

    found = problem("pinn-poisson", hidden="4-3")
    with jax.enable_x64(True):
        params = {n: jnp.asarray(p) for n, p in derivatives.nearby(found).items()}

        def u(x: Any) -> Any:
            return network(jnp, params, x[None], jnp.eye(2), 3)[0][0]

        x = jnp.array([0.3, 0.8])
        value, laplacian = network(jnp, params, x[None], jnp.eye(2), 3)
        assert float(value[0]) == pytest.approx(float(u(x)), rel=1e-12)
        assert float(laplacian[0]) == pytest.approx(float(jnp.trace(jax.jit(jax.hessian(u))(x))), rel=1e-10)


def test_the_pinns_samples_are_the_equation_and_its_boundary() -> None:
    train = problem("pinn-poisson").train
    inside, edge = train.inputs[:900], train.inputs[900:]
    assert np.all((inside[:, :2] > 0) & (inside[:, :2] < 1))
    assert np.all(np.any((edge[:, :2] == 0) | (edge[:, :2] == 1), axis=1))
    scale = np.sqrt(1020 / 900)
    source = 2 * np.pi**2 * np.prod(np.sin(np.pi * inside[:, :2]), axis=1)
    assert np.allclose(train.targets[:900], -scale * source)
    assert np.abs(train.targets[900:]).max() < 1e-14
    assert np.allclose(edge[:, 3], 2 * np.sqrt(1020 / 120))


def test_the_deeponets_targets_are_integrals() -> None:
    from curvebench.tasks.deeponet import antiderivatives

    found = antiderivatives("train", 5, 201, 4)
    fields, y = found.inputs[:, :-1], found.inputs[:, -1]
    fine = np.linspace(0, 1, 201)
    for v, end, integral in zip(fields, y, found.targets, strict=True):
        upto = fine <= end + 1e-12
        assert integral == pytest.approx(np.trapezoid(v[upto], fine[upto]), abs=1e-12)


def test_a_delta_hedge_leaves_what_derman_and_kamal_say() -> None:
    """Specification: .358 simulated against .370 by the formula at N = 30."""
    market = markets.Market("black-scholes", 30)
    prices, _ = market.simulate(np.random.default_rng(0), 40_000)
    left = market.delta_hedge(prices)
    assert market.derman_kamal() == pytest.approx(0.370, abs=5e-4)
    assert left.std() == pytest.approx(0.358, abs=5e-3)
    assert abs(left.mean()) < 5 * left.std() / 200
    assert markets.Market("black-scholes", 10).derman_kamal() == pytest.approx(0.641, abs=5e-4)


def test_prices_are_martingales_and_heston_has_its_moments() -> None:
    for model in ("black-scholes", "heston"):
        market = markets.Market(model, 5)
        prices, variances = market.simulate(np.random.default_rng(1), 40_000)
        assert prices.shape == variances.shape == (40_000, 6)
        error = prices[:, -1].std() / 200
        assert abs(prices[:, -1].mean() - 100) < 4 * error
        assert variances[:, -1].mean() == pytest.approx(0.04, rel=0.02)
    steps = np.diff(np.log(prices), axis=1)
    assert np.corrcoef(steps.reshape(-1), np.diff(variances, axis=1).reshape(-1))[0, 1] == pytest.approx(-0.7, abs=0.05)


def test_costs_and_gains_of_a_path_by_hand() -> None:
    from curvebench.tasks.hedging import shortfall

    prices, deltas = np.array([[100.0, 110.0, 105.0]]), np.array([[0.5, 0.8]])
    left = 5 - 2 - (0.5 * 10 - 0.8 * 5) + 0.01 * (0.5 * 100 + 0.3 * 110)
    assert shortfall(prices, deltas, 100.0, 2.0, 0.01)[0] == pytest.approx(left)
    assert shortfall(prices, deltas, 120.0, 2.0, 0.0)[0] == pytest.approx(0 - 2 - 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("quadratic-aligned", {"spectrum": "flat"}, "spectrum = 'flat': must be 'log' or 'deepobs'"),
        ("quadratic-aligned", {"condition": 0.5}, "condition = 0.5: need d >= 2 and condition >= 1"),
        ("logistic-reparametrised", {"coordinates": 0.5}, "coordinates = 0.5: must be 0"),
        ("rosenbrock", {"function": "sphere"}, "function = 'sphere': must be one of log-sum-exp"),
        ("matrix-sensing-over", {"k": 1}, "r = 2, k = 1: need 1 <= r <= k <= n"),
        ("free-features", {"d": 5}, "need d >= classes = 10"),
        ("teacher-student-tanh", {"student": 3}, "student = 3: must be at least teacher = 5"),
        ("teacher-student-tanh", {"activation": "gelu"}, "activation = 'gelu': must be one of tanh"),
        ("digits-autoencoder", {"hidden": "32-x"}, "hidden = '32-x': must be positive integers"),
        ("pinn-poisson", {"interior": 0}, "must be >= 1"),
        ("deeponet-antiderivative", {"sensors": 500}, r"must lie in \[1, 201\]"),
        ("hedging-entropic", {"risk": "cvar"}, "risk = 'cvar'"),
        ("hedging-entropic", {"model": "bates"}, "model = 'bates': must be 'black-scholes' or 'heston'"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problem(name, **options)
