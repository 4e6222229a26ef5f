"""F1, Matthews' and Pearson's correlation and the excess loss, against scikit-learn and SciPy, in both frameworks."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny
import torch

from curvebench.tasks.criteria_jax import cross_entropy as cross_entropy_jax
from curvebench.tasks.criteria_torch import cross_entropy as cross_entropy_torch
from curvebench.tasks.metrics import METRICS
from curvebench.tasks.problem import Split
from curvebench.tasks.scores import SCORES, Extra, ranks


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


def test_scores_of_a_whole_split_are_scikit_learn_s_and_scipy_s() -> None:
    sk, stats = pytest.importorskip("sklearn.metrics"), pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    outputs, targets = rng.standard_normal((60, 2)), rng.integers(0, 2, 60)
    guess = outputs.argmax(-1)
    for name, truth in (("accuracy", sk.accuracy_score), ("f1", sk.f1_score), ("matthews", sk.matthews_corrcoef)):
        assert SCORES[name](outputs, targets) == pytest.approx(truth(targets, guess), abs=1e-12), name
    scores, wanted = rng.integers(0, 9, 60) / 2, rng.integers(0, 6, 60) * 1.0  # many ties
    assert np.array_equal(ranks(scores), stats.rankdata(scores))
    assert SCORES["spearman"](scores, wanted) == pytest.approx(stats.spearmanr(scores, wanted).statistic, abs=1e-12)
    assert SCORES["pearson"](scores, wanted) == pytest.approx(stats.pearsonr(scores, wanted).statistic, abs=1e-12)
    assert SCORES["spearman"](np.zeros(5), np.arange(5.0)) == 0
    assert SCORES["f1"](np.tile([1.0, 0.0], (4, 1)), np.zeros(4, np.int64)) == 0


def test_extras_of_a_run_are_those_of_its_outputs_in_both_frameworks() -> None:
    other = Split(tiny.mlp().train.inputs[:5], tiny.mlp().train.targets[:5])
    at = replace(tiny.mlp(), extras={"test accuracy": Extra("accuracy"), "other accuracy": Extra("accuracy", other)},
                 test=tiny.mlp().train)  # fmt: skip
    found = [
        tiny.engine(tiny.run_spec("sgd", "least-squares", framework), at).scores() for framework in tiny.FRAMEWORKS
    ]
    assert found[0] == found[1]
    left = tiny.Torch(at)
    guess = left.task.objective.module(torch.from_numpy(at.train.inputs)).argmax(-1).numpy()
    assert found[0]["test accuracy"] == (guess == at.train.targets).mean()
    assert found[0]["other accuracy"] == (guess[:5] == other.targets).mean()
