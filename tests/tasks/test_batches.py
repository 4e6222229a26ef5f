"""Data order: the same for every method and both frameworks, without replacement, asked in any order."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import tiny
import torch

from curvebench import cards, tasks
from curvebench.spec import seed
from curvebench.tasks.problem import BatchOrder
from curvebench.tasks.runtime_jax import JaxTask
from curvebench.tasks.runtime_torch import TorchTask


def seen(spec: Any, problem: Any, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches that a run's oracle is handed."""
    engine = tiny.engine(spec, problem)
    batches = []
    if spec.framework == "torch":
        begin = engine.oracle.begin_step

        def spy(step: int, batch: Any) -> None:
            batches.append(tuple(t.numpy().copy() for t in batch))
            begin(step, batch)

        engine.oracle.begin_step = spy
        for step in range(steps):
            engine.step(step, float("inf"))
    else:
        for step in range(steps):
            engine.step(step, float("inf"))
            batches.append(tuple(np.asarray(a) for a in engine.task.batch(engine.task.data, engine.task.rows(step))))
    return batches


def test_two_methods_and_both_frameworks_see_the_same_batches() -> None:
    problem = tiny.mlp(batch=3)
    runs = [
        seen(tiny.run_spec(method, framework=framework, seed_block=0), problem, 7)
        for method in ("sgd", "mezo")
        for framework in tiny.FRAMEWORKS
    ]
    for run in runs[1:]:
        for (x, y), (u, v) in zip(runs[0], run, strict=True):
            assert np.array_equal(x, u)
            assert np.array_equal(y, v)
    assert not np.array_equal(runs[0][0][0], runs[0][1][0])


def test_the_shipped_digits_batches_are_the_same_bits_in_both_frameworks() -> None:
    problem = tasks.load(cards.task("digits-cnn"), "quick", 3)
    left = TorchTask(problem, torch.device("cpu"), torch.float32)
    right = JaxTask(problem, jax.devices("cpu")[0], np.float32)
    for step in (0, 5, 40):
        x, y = left.batch(step)
        u, v = right.batch(right.data, right.rows(step))
        assert x.shape == (64, 1, 8, 8)
        assert np.array_equal(x.numpy(), np.asarray(u))
        assert np.array_equal(y.numpy(), np.asarray(v))


@pytest.mark.parametrize(("n", "size"), [(10, 3), (12, 4), (7, 7), (5, 1)])
def test_an_epoch_takes_no_sample_twice_and_drops_the_incomplete_batch(n: int, size: int) -> None:
    order = BatchOrder(n, size, 5)
    per_epoch = n // size
    epochs = []
    for epoch in range(3):
        rows = np.concatenate([order[epoch * per_epoch + i] for i in range(per_epoch)])
        assert len(rows) == per_epoch * size == len(set(rows.tolist()))
        assert 0 <= rows.min() <= rows.max() < n
        epochs.append(rows)
    if n > size:
        assert not np.array_equal(epochs[0], epochs[1])


def test_any_step_can_be_asked_at_any_time() -> None:
    order, fresh = BatchOrder(20, 4, 5), BatchOrder(20, 4, 5)
    forward = [order[step] for step in range(12)]
    assert all(np.array_equal(fresh[step], forward[step]) for step in (11, 3, 7, 0, 3))


def test_orders_differ_between_blocks_and_tasks_and_follow_from_names_alone() -> None:
    base = tiny.mlp(batch=3)
    assert np.array_equal(base.order()[0], BatchOrder(10, 3, seed("order", "tiny-mlp", 0))[0])
    others = [BatchOrder(1000, 100, seed("order", task, block))[0] for task, block in (("a", 0), ("a", 1), ("b", 0))]
    assert not np.array_equal(others[0], others[1])
    assert not np.array_equal(others[0], others[2])


@pytest.mark.parametrize("batch", [0, 11, -1])
def test_a_batch_larger_than_the_data_is_refused(batch: int) -> None:
    with pytest.raises(ValueError, match=rf"batch = {batch}: must lie in \[1, 10\], the number of training samples"):
        BatchOrder(10, batch, 0)


def test_full_batches_are_all_samples_in_order() -> None:
    oracle = tiny.Torch(tiny.squared())
    for step in (0, 5):
        x, y = oracle.task.batch(step)
        assert np.array_equal(x.numpy(), oracle.problem.train.inputs)
        assert np.array_equal(y.numpy(), oracle.problem.train.targets)
