"""A problem in jax: functions, data on the device, batches and evaluation."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from curvebench.oracle.jax import Batch, Buffers, Objective, Params
from curvebench.tasks.criteria_jax import CRITERIA
from curvebench.tasks.metrics import METRICS
from curvebench.tasks.problem import Evaluation, Problem, Split

CHUNK = 2000
"""Samples per forward in evaluation; larger than in torch, since convolutions inside XLA's loops are slow on CPU."""


class JaxTask:
    """The jax twin of a problem.

    Args:
        problem: arrays and recipe.
        device: where data lives.
        dtype: of parameters, data and arithmetic.
    """

    def __init__(self, problem: Problem, device: Any, dtype: Any) -> None:
        self.problem = problem
        self._device, self._dtype = device, np.dtype(dtype)
        self.objective = Objective(problem.jax_apply(True), CRITERIA[problem.criterion], problem.likelihood, problem.l2)
        self._evaluation = problem.jax_apply(False)
        self.params: Params = {n: self._put(p.astype(self._dtype)) for n, p in problem.parameters.items()}
        self.buffers: Buffers = {n: self._put(b.astype(self._dtype)) for n, b in problem.buffers.items()}
        self._order = problem.order()
        self._rows = np.zeros(0, np.int32)
        self.data: Batch = self._place(problem.train)
        splits = {"train": problem.loss_probe(), "validation": problem.validation, "test": problem.test}
        if problem.metric == "gap":
            splits = {"train": splits["train"]}
        self._splits = {name: self._chunked(split) for name, split in splits.items() if split is not None}
        self._evaluate = jax.jit(self._evaluate_splits)

    def rows(self, step: int) -> np.ndarray[Any, Any]:
        """Indices ``[batch]`` int32 of the step's mini-batch (empty for full batches): the step's only host input.

        Where batches are augmented, ``[batch, 1 + columns]``: the index and what the augmentation draws.
        """
        if self._order.full and self.problem.augment is None:
            return self._rows
        rows = self._order[step].astype(np.int32)
        return rows if self.problem.augment is None else np.concatenate([rows[:, None], self.problem.draws(step)], 1)

    def batch(self, data: Batch, rows: Array) -> Batch:
        """Gather and normalise a mini-batch; traced inside the step."""
        inputs, targets = data
        if self.problem.augment is not None:
            inputs, targets = inputs[rows[:, 0]], targets[rows[:, 0]]
            inputs, targets = self.problem.augment.in_jax(inputs, targets, rows[:, 1:])
        elif not self._order.full:
            inputs, targets = inputs[rows], targets[rows]
        return self._prepare(inputs), targets

    def commit(self, buffers: Buffers, statistics: Buffers) -> Buffers:
        """Fold a step's batch statistics into the running ones; traced inside the step."""
        rate = self.problem.momentum
        return {name: old + rate * (statistics[name] - old) for name, old in buffers.items()}

    def evaluate(self, params: Params, buffers: Buffers) -> Evaluation:
        """Metric, training loss and test metric in evaluation mode."""
        means = {k: [float(m) for m in v] for k, v in self._evaluate(params, buffers, self._splits).items()}
        problem, (loss, penalty) = self.problem, means["train"]
        loss = (math.log(loss) if problem.pooled else loss) + penalty
        if problem.metric == "gap":
            assert problem.optimum is not None
            return Evaluation(loss - problem.optimum, loss, None)
        value = METRICS[problem.metric].value
        return Evaluation(value(*means["validation"]), loss, value(*means["test"]) if "test" in means else None)

    def scores(self, params: Params, buffers: Buffers) -> dict[str, float]:
        """The task's further metrics, in evaluation mode."""

        @jax.jit
        def forward(x: Array) -> Array:
            outputs: Array = self._evaluation(params, buffers, self._prepare(x), None)[0]
            return outputs

        def outputs(split: Split) -> np.ndarray[Any, Any]:
            chunks = self._chunked(split)[0]
            found = np.concatenate([np.asarray(forward(x), np.float64) for x in chunks])
            return found[: len(split)]  # the last chunk is filled up

        return self.problem.scored(outputs)

    def _evaluate_splits(
        self, params: Params, buffers: Buffers, splits: dict[str, Any]
    ) -> dict[str, tuple[Array, ...]]:
        found = {name: self._means(name, params, buffers, split) for name, split in splits.items()}
        penalty = self.objective.l2 / 2 * sum(jnp.vdot(p, p) for p in params.values())
        return {**found, "train": (*found["train"], jnp.asarray(penalty))}

    def _means(self, name: str, params: Params, buffers: Buffers, split: tuple[Array, Array, Array]) -> tuple[Any, ...]:
        """The averages over a split of the metric's terms, or of each sample's loss for the training samples.

        A criterion that is the log of a mean is averaged before the log.
        """

        def loss(outputs: Array, targets: Array) -> tuple[Array]:
            each = jax.vmap(lambda o, t: self.objective.criterion(o[None], t[None]))(outputs, targets)
            return (jnp.exp(each) if self.problem.pooled else each,)

        terms = loss if name == "train" else METRICS[self.problem.metric].terms

        def chunk(piece: tuple[Array, Array, Array]) -> tuple[Array, ...]:
            x, y, w = piece
            outputs, _ = self._evaluation(params, buffers, self._prepare(x), None)
            return tuple(jnp.sum(term.astype(self._dtype) * w) for term in terms(outputs, y))

        inputs, targets, weights = split
        if len(weights) == 1:
            return tuple(total / weights.sum() for total in chunk((inputs[0], targets[0], weights[0])))
        return tuple(totals.sum() / weights.sum() for totals in lax.map(chunk, split))

    def _chunked(self, split: Split) -> tuple[Array, Array, Array]:
        """Pad to whole chunks with weight 0: ``[chunks, size, ...]``."""
        size = min(self.problem.chunk or CHUNK, len(split))
        padding = -len(split) % size
        arrays = [np.concatenate([a, a[:padding]]) for a in split]
        weights = np.concatenate([np.ones(len(split)), np.zeros(padding)])
        inputs, targets, ones = (a.reshape(-1, size, *a.shape[1:]) for a in (*arrays, weights))
        return (*self._place(Split(inputs, targets)), self._put(ones.astype(self._dtype)))

    def _place(self, split: Split) -> Batch:
        inputs, targets = split
        if inputs.dtype != np.uint8:
            inputs = inputs.astype(np.int32 if np.issubdtype(inputs.dtype, np.integer) else self._dtype)
        kind = np.int32 if np.issubdtype(targets.dtype, np.integer) else self._dtype
        return self._put(inputs), self._put(targets.astype(kind))

    def _put(self, array: np.ndarray[Any, Any]) -> Array:
        placed: Array = jax.device_put(array, self._device)
        return placed

    def _prepare(self, inputs: Array) -> Array:
        if self.problem.normalisation is None:
            return inputs
        mean, std = (np.asarray(v, self._dtype)[:, None, None] for v in self.problem.normalisation)
        scale, shift = (1 / (255 * std)).astype(self._dtype), (-mean / std).astype(self._dtype)
        normal: Array = inputs.astype(self._dtype) * scale + shift
        return normal
