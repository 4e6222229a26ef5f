"""The generic adapter for torch: any ``torch.optim.Optimizer`` class is a method through its card."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from curvebench.cards import MethodCard
from curvebench.methods.resolve import load_target
from curvebench.methods.state_kinds import OTHER, kind
from curvebench.oracle.ledger import REPORTED
from curvebench.oracle.torch import TorchOracle
from curvebench.spec import Query, Scalar


class TorchMethod:
    """An optimiser driven by an oracle.

    ``optimizer.step(closure)`` is called with a closure that asks the oracle for the loss and the gradient, so that
    line searches and several-query optimisers are counted too. An optimiser with an attribute ``oracle`` (curvebench's
    own) is handed the counting oracle and pulls from it. An optimiser with ``train`` and ``eval`` is evaluated where
    its ``eval`` puts the parameters. A class with ``takes = "model"`` (a preconditioner, which
    makes its own base optimiser when it is given none) is constructed with the task's module, not its parameters.

    Args:
        card: the method's card, with a torch implementation.
        hyperparameters: resolved ``(name, value)`` pairs.
        oracle: where parameters and queries come from.
        multipliers: of the learning rates at every step; empty: they are constant. The last one holds on.
    """

    def __init__(
        self,
        card: MethodCard,
        hyperparameters: Collection[tuple[str, Scalar]],
        oracle: TorchOracle,
        multipliers: Sequence[float] = (),
    ) -> None:
        target = load_target(card.implementation["torch"].target)
        takes_model = getattr(target, "takes", "parameters") == "model"
        first = oracle.objective.module if takes_model else oracle.parameters
        self.optimizer: torch.optim.Optimizer = target(first, **card.arguments("torch", hyperparameters))
        self._oracle = oracle
        self._pulls = hasattr(self.optimizer, "oracle")
        if self._pulls:
            self.optimizer.oracle = oracle
        self._closure = self._loss if oracle.needs <= {Query.LOSS} else self._loss_and_gradient
        self.self_reported = [] if self._pulls else sorted(str(q) for q in oracle.needs - {Query.LOSS, Query.GRADIENT})
        self._multipliers = multipliers
        groups = self.optimizer.param_groups if multipliers else []
        self._rates = [
            (i, key, group[key])
            for i, group in enumerate(groups)
            for key in group
            if key == "lr" or key.endswith("_lr")
        ]

    def uncounted(self) -> tuple[str, ...]:
        """Columns of the ledger that nobody fills: a library that keeps factors does not say when it renews them."""
        return REPORTED[:2] if not self._pulls and {"factors", "inverses"} & self.state_bytes().keys() else ()

    def step(self) -> None:
        """One step on the oracle's current batch."""
        if self._rates:
            factor = self._multipliers[min(self._oracle.step, len(self._multipliers) - 1)]
            groups = self.optimizer.param_groups  # restoring a state makes new ones
            for i, key, rate in self._rates:
                groups[i][key] = rate * factor
        if self._pulls:
            self.optimizer.step()
        else:
            self.optimizer.step(self._closure)  # type: ignore[arg-type]  # torch's own closures return tensors

    def _loss(self) -> Tensor:
        return self._oracle.loss()

    def _loss_and_gradient(self) -> Tensor:
        point = self._oracle.at()
        for parameter, gradient in zip(self._oracle.parameters, point.gradient(), strict=True):
            parameter.grad = gradient
        return point.loss()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The parameters where they are to be evaluated; afterwards the ones of training, the same bits.

        ``train()`` after ``eval()`` gives them back to rounding only, and how often one looks must not change a run.
        """
        optimizer: Any = self.optimizer
        if not (callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))):
            yield
            return
        with torch.no_grad():
            kept = [p.clone() for p in self._oracle.parameters]
            optimizer.eval()
            try:
                yield
            finally:
                optimizer.train()
                for parameter, value in zip(self._oracle.parameters, kept, strict=True):
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's own state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.optimizer.load_state_dict(state)

    def notes(self) -> list[str]:
        """Sentences for the record that the optimiser has to say, such as skipped steps."""
        say = getattr(self.optimizer, "notes", None)
        if callable(say):
            return list(say())
        skipped = getattr(self.optimizer, "skipped", 0)
        return [f"{skipped} steps skipped: the gradient was not finite"] if skipped else []

    def state_bytes(self) -> dict[str, int]:
        """Bytes of the tensors that the optimiser keeps between steps, by kind; scalars (counters) are left out."""
        own = getattr(self.optimizer, "state_bytes", None)  # of one that keeps its state elsewhere
        if callable(own):
            return {OTHER: int(own())}
        sizes: dict[str, int] = {}
        for path, t in tensors(dict(self.optimizer.state)):
            if t.dim() > 0:
                sizes[kind(path)] = sizes.get(kind(path), 0) + t.numel() * t.element_size()
        return sizes


def tensors(tree: Any) -> list[tuple[tuple[str, ...], Tensor]]:
    """All tensors in nested dicts, lists, tuples and objects with attributes, each storage once, with their names."""
    found: dict[int, tuple[tuple[str, ...], Tensor]] = {}
    objects: dict[int, Any] = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, Tensor):
            found.setdefault(node.data_ptr(), (path, node))
        elif isinstance(node, dict):
            for key, value in node.items():
                visit(value, (*path, key) if isinstance(key, str) else path)
        elif isinstance(node, list | tuple):
            for value in node:
                visit(value, path)
        elif hasattr(node, "__dict__") and not isinstance(node, type) and id(node) not in objects:
            objects[id(node)] = node  # such as a library's class for one layer's factors
            visit(vars(node), path)

    visit(tree, ())
    return list(found.values())
