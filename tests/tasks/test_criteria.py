"""Criteria and metrics against NumPy, in both frameworks; their curvature in the outputs; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch

from curvebench import cards
from curvebench.tasks import criteria_jax, criteria_torch
from curvebench.tasks.problem import LIKELIHOODS, Problem, Split
from curvebench.tasks.runtime_jax import JaxTask
from curvebench.tasks.runtime_torch import TorchTask

N, K = 7, 3
RNG = np.random.default_rng(0)
OUTPUTS, REAL = RNG.standard_normal((N, K)), RNG.standard_normal((N, K))
SIGNS, SHARES, LABELS = np.sign(REAL[:, 0]), 1 / (1 + np.exp(-REAL)), RNG.integers(0, K, N)


def softplus(x: Any) -> Any:
    return np.logaddexp(0, x)


TRUTH: dict[str, tuple[np.ndarray, np.ndarray, Callable[[Any, Any], Any]]] = {
    "squared": (OUTPUTS, REAL, lambda o, y: np.mean((o - y) ** 2) / 2),
    "squared-norm": (OUTPUTS, REAL, lambda o, y: np.mean(np.linalg.norm(o - y, axis=1) ** 2) / 2),
    "quartic-norm": (OUTPUTS, REAL, lambda o, y: np.mean(np.linalg.norm(o - y, axis=1) ** 4) / 4),
    "logistic": (OUTPUTS[:, 0], SIGNS, lambda o, y: np.mean(softplus(-y * o))),
    "logistic-ridge": (
        OUTPUTS, SIGNS, lambda o, y: np.mean(softplus(-y * o[:, 0]) + np.sum(o[:, 1:] ** 2, axis=1) / 2)
    ),
    "bernoulli": (OUTPUTS, SHARES, lambda o, y: np.mean(np.sum(softplus(o) - y * o, axis=1))),
    "cross-entropy": (
        OUTPUTS, LABELS, lambda o, y: np.mean(np.log(np.exp(o).sum(1)) - o[np.arange(N), y])
    ),
    "smoothed-cross-entropy": (
        OUTPUTS, LABELS,
        lambda o, y: np.mean(np.log(np.exp(o).sum(1)) - 0.9 * o[np.arange(N), y] - 0.1 * o.mean(1)),
    ),
    "log-sum-exp": (OUTPUTS, REAL, lambda o, y: np.mean(np.log(np.exp(o - y).sum(1)))),
    "poisson": (OUTPUTS, SHARES, lambda o, y: np.mean(np.sum(np.exp(o) - y * o, axis=1))),
    "mean": (OUTPUTS[:, 0], REAL[:, 0], lambda o, y: np.mean(o)),
    "entropic": (OUTPUTS[:, 0], REAL[:, 0], lambda o, y: np.log(np.mean(np.exp(o - y)))),
}  # fmt: skip


def test_every_criterion_has_both_twins_a_likelihood_and_a_test() -> None:
    assert set(criteria_torch.CRITERIA) == set(criteria_jax.CRITERIA) == set(LIKELIHOODS) == set(TRUTH)


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_a_criterion_is_what_it_says_in_both_frameworks(name: str) -> None:
    outputs, targets, truth = TRUTH[name]
    expected = truth(outputs, targets)
    found = criteria_torch.CRITERIA[name](torch.tensor(outputs), torch.tensor(targets))
    assert found.item() == pytest.approx(expected, rel=1e-13)
    with jax.enable_x64(True):
        assert float(criteria_jax.CRITERIA[name](jax.numpy.array(outputs), jax.numpy.array(targets))) == pytest.approx(
            expected, rel=1e-13
        )


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_criteria_are_convex_in_the_outputs(name: str) -> None:
    """The output Hessian is positive semidefinite, hence the Gauss-Newton matrix; that of ``mean`` is zero."""
    outputs, targets, _ = TRUTH[name]
    hessian = torch.autograd.functional.hessian(
        lambda o: criteria_torch.CRITERIA[name](o.reshape(outputs.shape), torch.tensor(targets)),
        torch.tensor(outputs.reshape(-1)),
    )
    eigenvalues = np.linalg.eigvalsh(hessian.numpy())
    assert eigenvalues[0] > -1e-12
    assert (eigenvalues[-1] > 1e-3) == (name != "mean")


def test_smoothed_labels_have_the_twins_gradient_and_cross_entropys_hessian() -> None:
    """What is smoothed is the linear part of the loss: the curvature is what it would be without."""
    name, point, labels = "smoothed-cross-entropy", torch.tensor(OUTPUTS, requires_grad=True), torch.tensor(LABELS)
    (gradient,) = torch.autograd.grad(criteria_torch.CRITERIA[name](point, labels), point)
    p = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(1, keepdims=True)
    np.testing.assert_allclose(gradient.numpy(), (p - 0.9 * np.eye(K)[LABELS] - 0.1 / K) / N, rtol=1e-12, atol=1e-15)
    with jax.enable_x64(True):
        twin = jax.grad(criteria_jax.CRITERIA[name])(jax.numpy.array(OUTPUTS), jax.numpy.array(LABELS))
        np.testing.assert_allclose(np.asarray(twin), gradient.numpy(), rtol=1e-12, atol=1e-15)
    smoothed, plain = (
        torch.autograd.functional.hessian(lambda o, c=c: criteria_torch.CRITERIA[c](o, labels), torch.tensor(OUTPUTS))
        for c in (name, "cross-entropy")
    )
    torch.testing.assert_close(smoothed, plain, rtol=1e-12, atol=1e-15)


def test_only_the_paper_scale_of_the_vit_smooths_its_labels() -> None:
    card = cards.task("cifar10-vit")
    assert [scale for scale in card.scales if card.at(scale).options.get("label_smoothing")] == ["paper"]


@pytest.mark.parametrize("name", sorted(set(TRUTH) - {"entropic"}))
def test_the_criterion_of_a_batch_is_the_mean_over_its_samples(name: str) -> None:
    outputs, targets, truth = TRUTH[name]
    criterion = criteria_torch.CRITERIA[name]
    each = [criterion(torch.tensor(outputs[i : i + 1]), torch.tensor(targets[i : i + 1])).item() for i in range(N)]
    assert np.mean(each) == pytest.approx(truth(outputs, targets), rel=1e-13)


EXPECTED = {
    "accuracy": lambda o, y: np.mean(o.argmax(1) == y),
    "squared-error": lambda o, y: np.mean(np.sum((o - y) ** 2, axis=1)),
    "relative-l2": lambda o, y: np.linalg.norm(o - y) / np.linalg.norm(y),
    "deviation": lambda o, y: np.std(o - y),
}


# the metrics of classes and of tokens need other targets: tests/tasks/test_glue_metrics.py
@pytest.mark.parametrize("metric", sorted(EXPECTED))
def test_a_metric_over_uneven_chunks_in_both_frameworks(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runtime_torch", "runtime_jax"):
        monkeypatch.setattr(f"curvebench.tasks.{module}.CHUNK", 3)
    base = tiny.squared() if metric == "deviation" else tiny.mlp()
    held = {"accuracy": LABELS, "deviation": REAL[:, 0]}.get(metric, REAL)
    inputs = RNG.standard_normal((N, *base.train.inputs.shape[1:]))
    problem = replace(base, metric=metric, validation=Split(inputs, held), test=Split(inputs[:5], held[:5]))
    task = TorchTask(problem, torch.device("cpu"), torch.float64)
    outputs = task.objective.module(torch.tensor(inputs)).detach().numpy()
    seen = [task.evaluate()]
    with jax.enable_x64(True):
        jaxed = JaxTask(problem, jax.devices("cpu")[0], np.float64)
        seen.append(jaxed.evaluate(jaxed.params, jaxed.buffers))
    for found in seen:
        assert found.metric == pytest.approx(EXPECTED[metric](outputs, held), rel=1e-12)
        assert found.test == pytest.approx(EXPECTED[metric](outputs[:5], held[:5]), rel=1e-12)
        assert found.loss == pytest.approx(seen[0].loss, rel=1e-12)


def test_a_pooled_criterion_is_averaged_before_its_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runtime_torch", "runtime_jax"):
        monkeypatch.setattr(f"curvebench.tasks.{module}.CHUNK", 5)
    problem = replace(tiny.squared(l2=0.1), criterion="entropic")
    task = TorchTask(problem, torch.device("cpu"), torch.float64)
    weights = problem.parameters["0.weight"][0]
    rest = problem.train.inputs @ weights - problem.train.targets
    expected = np.log(np.mean(np.exp(rest))) + 0.05 * weights @ weights
    assert task.evaluate().loss == pytest.approx(expected, rel=1e-12)
    with jax.enable_x64(True):
        jaxed = JaxTask(problem, jax.devices("cpu")[0], np.float64)
        assert jaxed.evaluate(jaxed.params, jaxed.buffers).loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"criterion": "hinge"}, "criterion = 'hinge': must be one of squared"),
        ({"metric": "loss"}, "metric = 'loss': must be one of gap, accuracy"),
        ({"optimum": None}, "metric = 'gap' needs optimum, which is None"),
        ({"metric": "accuracy"}, "metric = 'accuracy' needs validation, which is None"),
    ],
)
def test_a_problem_that_cannot_be_evaluated_is_refused(changed: dict[str, Any], message: str) -> None:
    base: Problem = tiny.squared()
    with pytest.raises(ValueError, match=message):
        replace(base, **changed)
