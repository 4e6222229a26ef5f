"""Short runs of the shipped methods on the shipped tasks, with options of the statement's own."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.methods import resolve
from curvebench.oracle.ledger import as_dict
from curvebench.spec import Budget, RunSpec
from curvebench.tasks.problem import Problem

Array = npt.NDArray[np.float64]


def problem(name: str, seed_block: int = 0, **options: Any) -> Problem:
    """The quick task ``name`` in full batch unless ``batch`` is given, some of its options replaced."""
    card = cards.task(name)
    scale = card.at("quick")
    batch = options.pop("batch", scale.batch)
    module = importlib.import_module(card.module)
    found: Problem = module.problem(card, replace(scale, batch=batch, options={**scale.options, **options}), seed_block)
    return found


class Run:
    """One method on one problem in torch, float64 unless said otherwise, one thread.

    Args:
        on: the problem.
        method: a card's name.
        dtype: ``float64`` or ``float32``.
        given: hyperparameters that differ from the card's defaults.
    """

    def __init__(self, on: Problem, method: str, dtype: str = "float64", **given: Any) -> None:
        from curvebench.run.engine_torch import TorchEngine

        card = resolve(method)
        spec = RunSpec(
            task=on.name, scale="quick", method=method, hyperparameters=card.resolve(given),
            needs=tuple(sorted(str(n) for n in card.needs)), framework="torch", device="cpu", dtype=dtype,
            seed_block=on.seed_block, budget=Budget(1), draws="native",
        )  # fmt: skip
        self._engine = TorchEngine(spec, on, card, 1)
        self._step = 0

    def steps(self, n: int) -> None:
        """Take n steps."""
        for _ in range(n):
            self._engine.step(self._step, math.inf)
            self._step += 1

    def losses(self, n: int, every: int = 1) -> Iterator[float]:
        """Take n steps; the training loss after every so many, the initial one first."""
        yield self.loss()
        for _ in range(n // every):
            self.steps(every)
            yield self.loss()

    def loss(self) -> float:
        """The training loss."""
        return self._engine.evaluate().loss

    def metric(self) -> float:
        """The task's metric."""
        return self._engine.evaluate().metric

    def parameters(self) -> dict[str, Array]:
        """Copies of the live parameters."""
        oracle = self._engine.oracle
        return {n: p.detach().numpy().copy() for n, p in zip(oracle.names, oracle.parameters, strict=True)}

    def counts(self) -> dict[str, int]:
        """The ledger."""
        return as_dict(self._engine.counts())
