"""Dropout: masks against their definition, their law, torch = jax, one function within a step, none in evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import torch

from curvebench.spec import Query
from curvebench.tasks import bert_model
from curvebench.tasks.bert_jax import jax_classifier, jax_masked
from curvebench.tasks.bert_torch import torch_classifier, torch_masked
from curvebench.tasks.dropout import DropoutKeys, check_rate, kept
from curvebench.tasks.dropout_jax import dropout
from curvebench.tasks.dropout_torch import KeyedDropout, Keys
from curvebench.tasks.problem import Problem, Split

SHAPE = bert_model.Bert(1, 8, 2, 12, vocabulary=20, positions=16)
RATE = 0.25


def keys_of(batch: int) -> np.ndarray:
    return DropoutKeys().draws(3, 1, batch)[:, 0]


def in_torch(keys: np.ndarray, inputs: np.ndarray, rate: float, site: int, strides: tuple[int, ...]) -> np.ndarray:
    holder = Keys()
    holder.now = torch.from_numpy(keys)
    return KeyedDropout(holder, rate, site, strides)(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize(("shape", "strides"), [((5, 8), (8, 1)), ((2, 6, 6), (256, 16, 1)), ((8,), (1,))])
def test_masks_are_those_of_the_definition_in_both_frameworks(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    keys, inputs = keys_of(7), np.random.default_rng(0).standard_normal((7, *shape)).astype(np.float32)
    for site, rate in ((0, 0.1), (4, 0.5), (9, 0.999)):
        truth = np.where(kept(keys, shape, strides, site, rate), inputs / (1 - rate), 0)
        np.testing.assert_allclose(in_torch(keys, inputs, rate, site, strides), truth, rtol=1e-6)
        with_jax = dropout(jnp.asarray(inputs), jnp.asarray(keys), rate, site, strides)
        np.testing.assert_allclose(np.asarray(with_jax), truth, rtol=1e-6)


def test_a_share_of_rate_drops_independently_of_place_row_site_and_step() -> None:
    n, rate = 400, 0.1
    keys = DropoutKeys().draws(0, 0, n)[:, 0]
    masks = kept(keys, (30, 20), (20, 1), 1, rate)
    bound = 5 * math.sqrt(rate * (1 - rate))
    assert abs(masks.mean() - (1 - rate)) < bound / math.sqrt(masks.size)
    assert np.abs(masks.mean(axis=(1, 2)) - (1 - rate)).max() < bound / math.sqrt(600), "per row, 5 deviations"
    assert np.abs(masks.mean(axis=0) - (1 - rate)).max() < bound / math.sqrt(n), "per place"
    flat = masks.reshape(n, -1) - masks.mean()
    others = (
        kept(keys, (30, 20), (20, 1), 2, rate),
        kept(DropoutKeys().draws(0, 1, n)[:, 0], (30, 20), (20, 1), 1, rate),
        np.roll(masks, 1, axis=0),
        np.roll(masks, 1, axis=2),
        np.roll(masks, 1, axis=1),
    )
    for other in others:
        correlation = (flat * (other.reshape(n, -1) - other.mean())).mean() / flat.var()
        assert abs(correlation) < 5 / math.sqrt(flat.size)


def test_a_bad_rate_is_refused() -> None:
    assert check_rate("t", 0.0) == 0.0
    with pytest.raises(ValueError, match=r"t: dropout = 1: must lie in \[0, 1\)"):
        check_rate("t", 1.0)


def classifier(rate: float = RATE) -> Problem:
    """Sentences of 3 to 9 tokens, filled up to 12: torch cuts the batch, jax does not."""
    rng = np.random.default_rng(2)
    tokens = np.zeros((9, 2, 12), dtype=np.int64)
    for row, length in zip(tokens, rng.integers(3, 9, 9), strict=True):
        row[0, :length], row[1, length // 2 : length] = rng.integers(1, 20, length), 1
    split = Split(tokens, rng.integers(0, 2, 9))
    return problem(
        split, 2, lambda: torch_classifier(SHAPE, 2, rate),
        lambda train: jax_classifier(SHAPE, 2, rate if train else 0.0), metric="accuracy", padded=True,
    )  # fmt: skip


def masked() -> Problem:
    rng = np.random.default_rng(3)
    positions = np.sort(rng.permuted(np.tile(np.arange(10), (9, 1)), axis=1)[:, :3], axis=1)
    split = Split(np.concatenate([rng.integers(2, 20, (9, 10)), positions], axis=1), rng.integers(2, 20, (9, 3)))
    return problem(
        split, None, lambda: torch_masked(SHAPE, 10, RATE), lambda train: jax_masked(SHAPE, 10, RATE if train else 0.0),
        metric="token-loss",
    )  # fmt: skip


def problem(split: Split, outputs: int | None, module: Any, apply: Callable[[bool], Any], **more: Any) -> Problem:
    parameters = bert_model.initial(np.random.default_rng(1), SHAPE, outputs)
    rng = np.random.default_rng(4)
    return Problem(
        name="tiny-dropout", seed_block=0, train=split, validation=split, test=split, criterion="cross-entropy",
        parameters={n: p + 0.1 * rng.standard_normal(p.shape) for n, p in parameters.items()},
        torch_module=module, jax_apply=apply, batch=4, augment=DropoutKeys(), **more,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _needs_transformers(request: pytest.FixtureRequest) -> None:
    if "at" in request.fixturenames or "make" in request.fixturenames:
        pytest.importorskip("transformers", reason="transformers is not installed: pip install 'curvebench[bert]'")


@pytest.mark.parametrize("make", [classifier, pytest.param(masked, marks=pytest.mark.nightly)])
def test_both_frameworks_drop_the_same_and_evaluate_without(make: Callable[..., Problem]) -> None:
    at = make()
    needs = ("gradient",)
    left, right = (tiny.engine(tiny.run_spec("sgd", "rte-bert-tiny", f, needs=needs), at) for f in ("torch", "jax"))
    for step in range(2):  # the second step has other masks, and starts where dropout led the first
        left.step(step, math.inf)
        right.step(step, math.inf)
    theirs = tiny.parameters(right)
    for name, value in tiny.parameters(left).items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert left.evaluate().loss == pytest.approx(right.evaluate().loss, rel=1e-12)
    if make is classifier:
        plain = tiny.engine(
            tiny.run_spec("sgd", "rte-bert-tiny", "torch", needs=needs), replace(make(0.0), augment=None)
        )
        plain.restore(left.snapshot())
        assert plain.evaluate().loss == pytest.approx(left.evaluate().loss, rel=1e-12), "fused attention, nothing drops"


@pytest.fixture(scope="module")
def at() -> Problem:
    return classifier()


def test_queries_at_a_step_see_one_function(at: Problem) -> None:
    """Per-sample gradients average to the gradient, HVPs are its differences, a JVP its component."""
    needs = {Query.LOSS, Query.GRADIENT, Query.HVP, Query.PER_SAMPLE_GRADIENT, Query.JVP}
    running = tiny.engine(tiny.run_spec("sgd", "rte-bert-tiny", "torch"), at)
    from curvebench.oracle.torch import TorchOracle

    oracle = TorchOracle(running.oracle.objective, needs)
    oracle.begin_step(0, running.task.batch(0))
    assert torch.equal(oracle.loss(), oracle.loss())
    point = oracle.at()
    gradient = [g.detach().clone() for g in point.gradient()]
    for g, each in zip(gradient, oracle.at().per_sample_gradient(), strict=True):
        torch.testing.assert_close(each.mean(0), g, rtol=1e-9, atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    v = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in oracle.parameters]
    product, h = point.hvp(v), 1e-6
    moved = [
        [
            g.detach()
            for g in oracle.at([p.detach() + s * h * d for p, d in zip(oracle.parameters, v, strict=True)]).gradient()
        ]
        for s in (1, -1)
    ]
    for hv, up, down in zip(product, *moved, strict=True):
        torch.testing.assert_close(hv.detach(), (up - down) / (2 * h), rtol=1e-4, atol=1e-6)
    slope = sum((g * d).sum() for g, d in zip(gradient, v, strict=True))
    torch.testing.assert_close(oracle.at().jvp(v), slope, rtol=1e-9, atol=1e-12)
    inputs, targets = running.task.batch(0)
    other = inputs.clone()
    other[:, 2] += 1  # the same sentences with another step's keys
    first = oracle.loss()
    oracle.begin_step(1, (other, targets))
    assert not torch.equal(first, oracle.loss())
