"""A problem in torch: module, data on the device, batches and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvebench.oracle.torch import Batch, Objective
from curvebench.tasks.criteria_torch import CRITERIA
from curvebench.tasks.metrics import METRICS
from curvebench.tasks.problem import Evaluation, Problem, Split

CHUNK = 500
"""Samples per forward in evaluation."""


def lengths(inputs: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How many tokens each of ``[n, 2, length]`` has; 0 is the filling."""
    return np.asarray((inputs[:, 0] != 0).sum(axis=-1))


def whole(length: int) -> int:
    """The next multiple of 8: few different shapes, and what matrix units like."""
    return -(-length // 8) * 8


class TorchTask:
    """The torch twin of a problem.

    Args:
        problem: arrays and recipe.
        device: where parameters and data live.
        dtype: of parameters, data and arithmetic.
    """

    def __init__(self, problem: Problem, device: torch.device, dtype: torch.dtype) -> None:
        self.problem = problem
        self._device, self._dtype = device, dtype
        module = problem.torch_module().to(device, dtype)
        live = dict(module.named_parameters())
        if list(live) != list(problem.parameters):
            raise ValueError(f"{problem.name}: parameters of the torch twin {list(live)} are not the problem's")
        state = {**problem.parameters, **problem.buffers}
        with torch.no_grad():
            for name, tensor in (*live.items(), *module.named_buffers()):
                if name in state:
                    tensor.copy_(torch.from_numpy(np.ascontiguousarray(state[name])))
        module.train()
        self.objective = Objective(module, CRITERIA[problem.criterion], problem.likelihood, problem.l2)
        self._shift: Tensor | None = None
        if problem.normalisation is not None:
            mean, std = (torch.tensor(v, dtype=dtype, device=device)[:, None, None] for v in problem.normalisation)
            self._scale, self._shift = 1 / (255 * std), -mean / std
        self._inputs, self._targets = self._place(problem.train)
        self._lengths = lengths(problem.train.inputs) if problem.padded else None
        self._order = problem.order()
        self._full: Batch | None = (self._prepare(self._inputs), self._targets) if self._order.full else None

    def batch(self, step: int) -> Batch:
        """Inputs and targets of the step's mini-batch, gathered and normalised on the device."""
        if self._full is not None:
            return self._full
        numbers = self._order[step]
        rows = torch.from_numpy(numbers).to(self._device)
        inputs, targets = self._inputs[rows], self._targets[rows]
        if self.problem.augment is not None:
            draws = torch.from_numpy(self.problem.draws(step)).to(self._device)
            inputs, targets = self.problem.augment.in_torch(inputs, targets, draws)
        if self._lengths is not None:
            inputs = inputs[..., : whole(int(self._lengths[numbers].max()))]
        return self._prepare(inputs), targets

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Metric, training loss and test metric at the live parameters, in evaluation mode; changes no state."""
        problem, module = self.problem, self.objective.module
        module.eval()
        try:
            loss = self._loss(problem.loss_probe())
            if problem.metric == "gap":
                assert problem.optimum is not None
                return Evaluation(loss - problem.optimum, loss, None)
            assert problem.validation is not None
            test = None if problem.test is None else self._metric(problem.test)
            return Evaluation(self._metric(problem.validation), loss, test)
        finally:
            module.train()

    @torch.no_grad()
    def scores(self) -> dict[str, float]:
        """The task's further metrics at the live parameters, in evaluation mode."""
        module = self.objective.module
        module.eval()
        try:
            return self.problem.scored(
                lambda split: np.concatenate([module(x).double().cpu().numpy() for x, _ in self._chunks(split)])
            )
        finally:
            module.train()

    def _loss(self, split: Split) -> float:
        """The objective on a split, chunk by chunk; the logarithm of a mean is taken after averaging."""
        objective, pooled = self.objective, self.problem.pooled

        def terms(outputs: Tensor, targets: Tensor) -> tuple[Tensor]:
            value = objective.criterion(outputs, targets)
            return ((value.exp() if pooled else value) * len(targets),)

        (value,) = self._means(split, terms)
        value = math.log(value) if pooled else value
        if objective.l2:
            value += objective.l2 / 2 * sum(float(p.square().sum()) for p in objective.module.parameters())
        return value

    def _metric(self, split: Split) -> float:
        metric = METRICS[self.problem.metric]
        return metric.value(*self._means(split, metric.terms))

    def _means(self, split: Split, terms: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> list[float]:
        """The terms' averages over a split."""
        seen = [[float(term.sum()) for term in terms(self.objective.module(x), y)] for x, y in self._chunks(split)]
        return [sum(column) / len(split) for column in zip(*seen, strict=True)]

    def _chunks(self, split: Split) -> Iterator[Batch]:
        size = self.problem.chunk or CHUNK
        for start in range(0, len(split), size):
            piece = Split(*(a[start : start + size] for a in split))
            if self.problem.padded:
                piece = Split(piece.inputs[..., : whole(int(lengths(piece.inputs).max()))], piece.targets)
            inputs, targets = self._place(piece)
            yield self._prepare(inputs), targets

    def _place(self, split: Split) -> Batch:
        inputs, targets = (torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for a in split)
        return (
            inputs if inputs.dtype in (torch.uint8, torch.int64) else inputs.to(self._dtype),
            targets if targets.dtype == torch.int64 else targets.to(self._dtype),
        )

    def _prepare(self, inputs: Tensor) -> Tensor:
        if self._shift is None:
            return inputs
        return torch.addcmul(self._shift, inputs.to(self._dtype), self._scale)
