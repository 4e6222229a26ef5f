"""The known minima: they are minima, descent converges to them at its textbook rate, and nothing ends below them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch

from curvebench import cards, tasks
from curvebench.data.breast_cancer import load_breast_cancer
from curvebench.tasks.least_squares import design
from curvebench.tasks.logistic import minimise, standardise
from curvebench.tasks.runtime_jax import JaxTask
from curvebench.tasks.runtime_torch import TorchTask

LOGISTIC = 0.059829471881805


def test_the_logistic_minimiser_has_no_gradient_left_and_its_value_is_on_the_card() -> None:
    card = cards.task("logistic-breast-cancer")
    l2 = float(card.options["l2"])
    raw = load_breast_cancer()
    x, y = standardise(raw.features), raw.labels
    w, value, norm = minimise(x, y, l2)
    slope = -(x * (y / (1 + np.exp(y * (x @ w))))[:, None]).mean(0) + l2 * w
    assert norm < 1e-14
    assert np.linalg.norm(slope) < 1e-14
    assert value == pytest.approx(np.mean(np.log1p(np.exp(-y * (x @ w)))) + l2 / 2 * w @ w, rel=1e-14)
    assert card.optimum is not None
    assert card.optimum.value == LOGISTIC
    assert abs(value - LOGISTIC) < 1e-14 < card.optimum.tolerance
    problem = tasks.load(card, "quick", 0)
    assert problem.optimum == value
    rng = np.random.default_rng(0)
    for scale in (1e-1, 1e-3, 1e-5):
        there = w + scale * rng.standard_normal(len(w))
        assert np.mean(np.logaddexp(0, -y * (x @ there))) + l2 / 2 * there @ there > value


def test_breast_cancer_features_are_standardised_and_the_bias_is_a_column() -> None:
    x = standardise(np.array([[1.0, 5.0, 7.0], [3.0, 5.0, 8.0]]))
    assert x.tolist() == [[-1, 0, -1, 1], [1, 0, 1, 1]]


@pytest.mark.parametrize("rotation", [True, False])
def test_the_spectrum_of_least_squares_is_the_promised_one(rotation: bool) -> None:
    a, b = design(60, 8, 50.0, rotation, 0.01)
    eigenvalues = np.linalg.eigvalsh(a.T @ a / 60)[::-1]
    assert eigenvalues == pytest.approx(np.logspace(0, -np.log10(50.0), 8) ** 2, rel=1e-9)
    gram = a.T @ a / 60
    off_diagonal = np.abs(gram - np.diag(np.diag(gram))).max()
    assert (off_diagonal < 1e-12) != rotation
    assert np.array_equal(b, design(60, 8, 50.0, rotation, 0.01)[1]), "one instance, whatever the seed block"


def test_an_impossible_spectrum_is_refused() -> None:
    for bad in ((5, 8, 10.0), (60, 8, 0.5)):
        with pytest.raises(ValueError, match="need n >= d and condition >= 1"):
            design(*bad, True, 0.01)


def test_the_least_squares_minimum_is_the_residual_of_the_normal_equations() -> None:
    problem = tasks.load(cards.task("least-squares"), "quick", 0)
    a, b = problem.train
    x = np.linalg.solve(a.T @ a, a.T @ b)
    assert np.linalg.norm(a.T @ (a @ x - b) / len(b)) < 1e-12
    assert problem.optimum == pytest.approx(np.mean((a @ x - b) ** 2) / 2, rel=1e-10)
    assert problem.optimum == tasks.load(cards.task("least-squares"), "quick", 5).optimum
    assert problem.optimum > 0


@pytest.mark.parametrize("framework", tiny.FRAMEWORKS)
def test_gradient_descent_converges_at_its_textbook_rate(framework: str) -> None:
    """Each step multiplies the error in eigenvector i by 1 - lr l_i: gap_k = sum l_i (1 - lr l_i)^2k c_i^2 / 2."""
    problem = tasks.load(cards.task("least-squares"), "quick", 0)
    a, b = problem.train
    eigenvalues, vectors = np.linalg.eigh(a.T @ a / len(b))
    start = vectors.T @ (problem.parameters["0.weight"][0] - np.linalg.lstsq(a, b)[0])
    engine = tiny.engine(tiny.run_spec("sgd", framework=framework, lr=1.5), problem)
    for step in range(40):
        predicted = 0.5 * np.sum(eigenvalues * (1 - 1.5 * eigenvalues) ** (2 * step) * start**2)
        if step % 10 == 0:
            assert engine.evaluate().metric == pytest.approx(predicted, rel=1e-7)
        engine.step(step, float("inf"))


@pytest.mark.parametrize("name", ["least-squares", "logistic-breast-cancer"])
@pytest.mark.parametrize("method", ["lbfgs", "adam", "momentum"])
def test_nothing_ends_below_the_minimum(name: str, method: str) -> None:
    problem = tasks.load(cards.task(name), "quick", 0)
    given = {"adam": {"lr": 0.1}, "momentum": {"lr": 0.5}, "lbfgs": {}}[method]
    engine = tiny.engine(tiny.run_spec(method, **given), problem)
    gaps = []
    for step in range(150):
        engine.step(step, float("inf"))
        if step % 10 == 9:
            gaps.append(engine.evaluate().metric)
    assert min(gaps) > -1e-14
    assert gaps[-1] < gaps[0]
    if method == "lbfgs" and problem.criterion == "logistic":
        assert gaps[-1] < 1e-8, "it gets there, so the bound is put to the test"


@pytest.mark.parametrize("name", ["least-squares", "logistic-breast-cancer", "digits-cnn"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_evaluation_is_the_same_in_both_frameworks(name: str, dtype: str, device: str) -> None:
    problem = tasks.load(cards.task(name), "quick", 1)
    left = TorchTask(problem, torch.device(device), getattr(torch, dtype))
    with jax.enable_x64(dtype == "float64"):
        right = JaxTask(problem, tiny.jax_device(device), dtype)
        one, other = left.evaluate(), right.evaluate(right.params, right.buffers)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    assert one.loss == pytest.approx(other.loss, rel=tolerance)
    assert (one.test is None) == (other.test is None)
    if problem.metric == "gap":
        assert one.metric == pytest.approx(other.metric, rel=tolerance)
        assert one.metric == pytest.approx(one.loss - problem.optimum, rel=1e-12)
    else:
        assert (one.metric, one.test) == pytest.approx((other.metric, other.test), abs=1e-6)


def test_accuracy_is_the_share_of_hits_over_uneven_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 samples in chunks of 3: padding counts for nothing."""
    for module in ("runtime_torch", "runtime_jax"):
        monkeypatch.setattr(f"curvebench.tasks.{module}.CHUNK", 3)
    problem = tiny.mlp(0.3)
    oracle = tiny.Torch(problem)
    assert problem.validation is not None
    logits = oracle.task.objective.module(torch.tensor(problem.validation.inputs)).detach().numpy()
    share = np.mean(logits.argmax(-1) == problem.validation.targets)
    seen: list[Any] = [oracle.task.evaluate()]
    with jax.enable_x64(True):
        jaxed = JaxTask(problem, jax.devices("cpu")[0], np.float64)
        seen.append(jaxed.evaluate(jaxed.params, jaxed.buffers))
    for found in seen:
        assert found.metric == found.test == pytest.approx(share, abs=1e-12)
        assert found.loss == pytest.approx(oracle.ask("loss"), rel=1e-12), "the regulariser included, once"


def test_criteria_of_both_frameworks_are_finite_far_out() -> None:
    """torch's softplus turns linear at 20 by default, which is a kink of the Hessian: not here."""
    from curvebench.tasks import criteria_jax, criteria_torch

    outputs, signs = np.array([-800.0, -30.0, 0.0, 25.0, 800.0]), np.array([1.0, 1.0, -1.0, -1.0, 1.0])
    truth = np.logaddexp(0, -signs * outputs).mean()
    assert criteria_torch.logistic(torch.tensor(outputs), torch.tensor(signs)).item() == pytest.approx(truth, rel=1e-12)
    x = torch.tensor(25.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(criteria_torch.logistic(x[None], torch.tensor([-1.0])), x, create_graph=True)
    (curve,) = torch.autograd.grad(slope, x)
    assert curve.item() == pytest.approx(np.exp(-25.0), rel=1e-6)
    with jax.enable_x64(True):
        assert float(criteria_jax.logistic(jax.numpy.array(outputs), jax.numpy.array(signs))) == pytest.approx(
            truth, rel=1e-12
        )
