"""A task at one set of parameters: what an approximation is built from, and what it is held against.

Everything is of the whole training set in float64. The regulariser's curvature is a known multiple of the identity: it
is left out of all matrices, and of the gradient with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvebench.cards import TaskCard
from curvebench.oracle.dense_torch import dense, flat
from curvebench.oracle.torch import Batch, TorchOracle
from curvebench.spec import Query, seed
from curvebench.tasks.problem import Problem
from curvebench.tasks.runtime_torch import TorchTask
from curvebench.types import FloatArray, Parameters


class Site:
    """A problem at one point, with an oracle that answers all that its task offers.

    Args:
        card: the task's card.
        problem: the task at a seed block; its own parameters are replaced.
        parameters: by name, arrays.
        checkpoint: names the point; with the seed block it decides all draws.
    """

    def __init__(self, card: TaskCard, problem: Problem, parameters: Parameters, checkpoint: str) -> None:
        whole = replace(problem, parameters=parameters, batch=None, l2=0.0, augment=None)
        self.card = card
        self.task = TorchTask(whole, torch.device("cpu"), torch.float64)
        self.batch: Batch = self.task.batch(0)
        self._seed = seed("quality", problem.name, problem.seed_block, checkpoint)
        offered = [query for query in card.offers if query is not Query.LOSS_FUNCTION]
        self.oracle = TorchOracle(self.task.objective, offered, self._seed)
        self.oracle.begin_step(0, self.batch)
        self.parameters: list[Tensor] = [p for p in self.oracle.parameters if p.requires_grad]
        needs = {Query.GRADIENT}
        self.loss, self.gradient = (
            float((point := self.oracle.at(needs=needs)).loss()),
            array(flat(point.gradient())),
        )

    @property
    def d(self) -> int:
        """The number of parameters."""
        return len(self.gradient)

    def ggn(self) -> FloatArray:
        """The generalised Gauss-Newton matrix ``[d, d]``."""
        return array(dense(self.oracle.at(needs=(Query.GGNVP,)).ggnvps, self.parameters))

    def hessian(self) -> FloatArray:
        """The Hessian ``[d, d]``."""
        return array(dense(self.oracle.at(needs=(Query.GRADIENT, Query.HVP)).hvps, self.parameters))

    def batches(self, count: int, size: int) -> Iterator[tuple[int, Batch]]:
        """``(step, batch)`` of random samples without replacement inside a batch; the oracle is at that step."""
        rng = np.random.default_rng(self._seed)
        inputs, targets = self.batch
        for step in range(count):
            rows = torch.from_numpy(rng.choice(len(targets), min(size, len(targets)), replace=False))
            batch = inputs[rows], targets[rows]
            self.oracle.begin_step(step, batch)
            yield step, batch
        self.oracle.begin_step(count, self.batch)

    def layers(self) -> list[slice]:
        """Where each module's parameters lie in the vector of all, modules in order."""
        found: dict[str, list[int]] = {}
        start = 0
        for name, p in zip(self.oracle.names, self.oracle.parameters, strict=True):
            end = start + p.numel()
            found.setdefault(name.rpartition(".")[0], []).extend((start, end))
            start = end
        return [slice(ends[0], ends[-1]) for ends in found.values()]

    def place(self, parameter: Tensor) -> npt.NDArray[np.int64]:
        """The positions ``[*shape]`` of a parameter's numbers in the vector of all."""
        start = 0
        for p in self.parameters:
            if p is parameter:
                return np.arange(start, start + p.numel()).reshape(tuple(p.shape))
            start += p.numel()
        raise ValueError("not a parameter of this task")

    def decrease(self, direction: FloatArray, length: float) -> float:
        """``f(theta) - f(theta - length direction)``."""
        moved, start = [], 0
        vector = torch.from_numpy(direction)
        for p in self.parameters:
            piece = vector[start : start + p.numel()].view(p.shape)
            moved.append(p.detach() - length * piece)
            start += p.numel()
        return self.loss - float(self.oracle.at(moved, needs=(Query.LOSS,)).loss())

    def kept(self, build: Callable[[Site], Any]) -> Any:
        """What ``build`` returns, with parameters, gradients and ledger afterwards as they were before."""
        before = [p.detach().clone() for p in self.parameters]
        self.oracle.begin_step(0, self.batch)
        try:
            return build(self)
        finally:
            with torch.no_grad():
                for p, value in zip(self.parameters, before, strict=True):
                    p.copy_(value)
                    p.grad = None
            self.oracle.begin_step(0, self.batch)


def array(tensor: Tensor | Sequence[Tensor]) -> FloatArray:
    """A tensor's numbers in float64."""
    found: FloatArray = (tensor if isinstance(tensor, Tensor) else flat(tensor)).detach().double().numpy()
    return found
