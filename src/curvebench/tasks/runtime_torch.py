"""A problem in torch: module, data on the device, batches and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curvebench.oracle.torch import Batch, Objective
from curvebench.tasks.problem import Evaluation, Problem, Split

CHUNK = 500
"""Samples per forward in evaluation."""


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean (o - y)^2 / 2``."""
    return (outputs - targets).square().mean() / 2


def logistic(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean log(1 + exp(-y o))`` for labels +-1."""
    return -F.logsigmoid(targets * outputs).mean()  # softplus either linearises beyond a threshold or overflows


CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": squared,
    "logistic": logistic,
    "cross-entropy": F.cross_entropy,
}


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
        self._order = problem.order()
        self._full: Batch | None = (self._prepare(self._inputs), self._targets) if self._order.full else None

    def batch(self, step: int) -> Batch:
        """Inputs and targets of the step's mini-batch, gathered and normalised on the device."""
        if self._full is not None:
            return self._full
        rows = torch.from_numpy(self._order[step]).to(self._device)
        return self._prepare(self._inputs[rows]), self._targets[rows]

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Metric, training loss and test metric at the live parameters, in evaluation mode; changes no state."""
        problem, module = self.problem, self.objective.module
        module.eval()
        try:
            loss = self._mean_loss(problem.loss_probe())
            if problem.metric == "gap":
                assert problem.optimum is not None
                return Evaluation(loss - problem.optimum, loss, None)
            assert problem.validation is not None
            test = None if problem.test is None else self._accuracy(problem.test)
            return Evaluation(self._accuracy(problem.validation), loss, test)
        finally:
            module.train()

    def _mean_loss(self, split: Split) -> float:
        objective, total = self.objective, 0.0
        for inputs, targets in self._chunks(split):
            total += float(objective.criterion(objective.module(inputs), targets)) * len(targets)
        value = total / len(split)
        if objective.l2:
            value += objective.l2 / 2 * sum(float(p.square().sum()) for p in objective.module.parameters())
        return value

    def _accuracy(self, split: Split) -> float:
        hits = sum(int((self.objective.module(x).argmax(-1) == y).sum()) for x, y in self._chunks(split))
        return hits / len(split)

    def _chunks(self, split: Split) -> Iterator[Batch]:
        for start in range(0, len(split), CHUNK):
            inputs, targets = self._place(Split(*(a[start : start + CHUNK] for a in split)))
            yield self._prepare(inputs), targets

    def _place(self, split: Split) -> Batch:
        inputs, targets = (torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for a in split)
        return (
            inputs if inputs.dtype == torch.uint8 else inputs.to(self._dtype),
            targets if targets.dtype == torch.int64 else targets.to(self._dtype),
        )

    def _prepare(self, inputs: Tensor) -> Tensor:
        if self._shift is None:
            return inputs
        return torch.addcmul(self._shift, inputs.to(self._dtype), self._scale)
