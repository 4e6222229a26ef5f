"""F1, Matthews' and Pearson's correlation and the excess loss, against scikit-learn and SciPy, in both frameworks."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

from curvebench.tasks.criteria_jax import cross_entropy as cross_entropy_jax
from curvebench.tasks.criteria_torch import cross_entropy as cross_entropy_torch
from curvebench.tasks.metrics import METRICS


def evaluate(name: str, outputs: np.ndarray, targets: np.ndarray) -> float:
    """The metric over two uneven chunks, as the runtimes do it, the same in both frameworks."""
    metric, found = METRICS[name], []
    with jax.enable_x64(True):
        for wrap in (torch.from_numpy, jax.numpy.asarray):
            chunks = [metric.terms(wrap(outputs[a:b]), wrap(targets[a:b])) for a, b in ((0, 7), (7, len(targets)))]
            sums = [sum(float(term.sum()) for term in column) for column in zip(*chunks, strict=True)]
            found.append(metric.value(*(total / len(targets) for total in sums)))
    assert found[0] == pytest.approx(found[1], abs=1e-12)
    return found[0]


def test_f1_and_matthews() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    outputs, targets = rng.standard_normal((40, 2)), rng.integers(0, 2, 40)
    guess = outputs.argmax(-1)
    assert evaluate("f1", outputs, targets) == pytest.approx(sk.f1_score(targets, guess), abs=1e-12)
    assert evaluate("matthews", outputs, targets) == pytest.approx(sk.matthews_corrcoef(targets, guess), abs=1e-12)


def test_constant_answers_score_zero_and_not_nan() -> None:
    never = np.tile([1.0, 0.0], (10, 1))
    assert evaluate("f1", never, np.zeros(10, np.int64)) == 0
    assert evaluate("matthews", never, np.arange(10) % 2) == 0
    assert evaluate("pearson", np.zeros(10), np.arange(10.0)) == 0


def test_pearson() -> None:
    rng = np.random.default_rng(1)
    outputs, targets = rng.standard_normal(30), rng.random(30) * 5
    assert evaluate("pearson", outputs, targets) == pytest.approx(np.corrcoef(outputs, targets)[0, 1], abs=1e-12)


def test_excess_is_the_divergence_and_zero_at_the_truth() -> None:
    rng = np.random.default_rng(2)
    truth = rng.dirichlet(np.ones(5), (9, 3))
    logits = rng.standard_normal((9, 3, 5))
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert evaluate("excess", logits, truth) == pytest.approx(
        (truth * (np.log(truth) - log_q)).sum(-1).mean(), rel=1e-12
    )
    assert evaluate("excess", np.log(truth) + 3, truth) == pytest.approx(0, abs=1e-12)


def test_cross_entropy_of_several_labels_a_sample() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3))
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_q, labels[..., None], -1).mean()
    assert cross_entropy_torch(torch.from_numpy(logits), torch.from_numpy(labels)).item() == pytest.approx(expected)
    with jax.enable_x64(True):
        assert float(cross_entropy_jax(jax.numpy.array(logits), jax.numpy.array(labels))) == pytest.approx(expected)
