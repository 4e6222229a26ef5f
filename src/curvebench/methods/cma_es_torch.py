"""CMA-ES in torch through pycma: a Gaussian whose mean and covariance follow the better half of its samples.

Per step, with mean m, step size sigma and covariance C: ``x_k ~ N(m, sigma^2 C)``, k = 1..population; the samples are
ranked by their losses on the step's batch; pycma moves m, sigma and C. The parameters are m between steps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvebench.errors import CurvebenchError, MissingPackageError
from curvebench.methods.validation import check, whole
from curvebench.oracle.optimizer_torch import LossOptimizer
from curvebench.oracle.streams_torch import Stream

COVARIANCES = ("auto", "full", "diagonal")
LARGEST_FULL = 2000
"""Above this many parameters ``covariance='auto'`` is diagonal: C takes d^2 numbers and its eigenvectors d^3 flops."""


class CMAES(LossOptimizer):
    """CMA-ES. Alone, pass ``step`` a closure that returns the loss; no ``backward`` is needed.

    Args:
        params: parameters or groups, of floating dtype; frozen ones are left alone; the others are one search space.
        sigma: first standard deviation of every parameter, > 0.
        population: samples a step, >= 2; 0: ``4 + floor(3 ln d)``.
        covariance: ``'full'``; ``'diagonal'``: separable; ``'auto'``: full up to 2000 parameters.
        generator: source of the noise; by default an own one, seeded from torch's global seed at the first step.

    Raises:
        HyperparameterError: a value outside its range.
        TypeError: a parameter is not of floating dtype.
        CurvebenchError: ``step`` without a closure.
        MissingPackageError: pycma is not installed.

    Differs from pycma: its noise comes from the oracle, not from NumPy's global generator; its stopping rules are not
    asked. A loss that is not finite ranks last; a step without any finite loss is skipped and counted in ``skipped``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        sigma: float = 0.1,
        population: int = 0,
        covariance: str = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        check("CMAES", "sigma", sigma, "(0, inf)")
        if population:
            population = whole("CMAES", "population", population, "[2, inf)")
        check("CMAES", "covariance", covariance, COVARIANCES)
        if find_spec("cma") is None:
            raise MissingPackageError("cma", "baselines", "CMAES")
        self.sigma, self.population, self.covariance = sigma, population, covariance
        self._strategy: Any = None
        super().__init__(params, {}, generator)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """One generation; returns the mean of its finite losses, NaN if there are none."""
        oracle = self.ask(closure)
        strategy = self._strategy = self._strategy or self._begin()
        strategy.opts["randn"].stream = oracle.stream("cma-es")
        decomposed = getattr(strategy.sm, "count_eigen", 0)
        candidates, losses = strategy.ask(), []
        try:
            for candidate in candidates:
                self._place(candidate)
                losses.append(float(oracle.loss()))
            finite = [value for value in losses if math.isfinite(value)]
            if finite:
                worst = max(finite)
                strategy.tell(candidates, [v if math.isfinite(v) else worst + abs(worst) + 1 for v in losses])
                oracle.tally(factors=1)
            else:
                self.skipped += 1
        finally:  # also when the budget ends inside the generation
            self._place(strategy.mean)
            oracle.tally(inverses=getattr(strategy.sm, "count_eigen", 0) - decomposed)
        return torch.tensor(sum(finite) / len(finite) if finite else math.nan)

    def _begin(self) -> Any:
        import cma  # a second and a half, which nobody pays who imports the other optimisers

        start = np.concatenate([p.detach().double().cpu().numpy().reshape(-1) for p in self.everything()])
        diagonal = self.covariance == "diagonal" or (self.covariance == "auto" and start.size > LARGEST_FULL)
        options = {"randn": Noise(), "seed": math.nan, "verbose": -9, "verb_log": 0, "CMA_diagonal": diagonal}
        options["popsize"] = self.population or 4 + math.floor(3 * math.log(start.size))
        return cma.CMAEvolutionStrategy(start, self.sigma, options)

    def _place(self, x: np.ndarray[Any, Any]) -> None:
        """Copy a point of the search space ``[d]`` into the parameters."""
        flat, start = torch.from_numpy(np.ascontiguousarray(x)), 0
        for p in self.everything():
            p.copy_(flat[start : start + p.numel()].view(p.shape))
            start += p.numel()

    def state_bytes(self) -> int:
        """Bytes of the arrays that pycma keeps between steps, its history and archive included."""
        return sum(array.nbytes for array in _arrays(self._strategy, {}))

    def notes(self) -> list[str]:
        """How many steps were skipped."""
        return [f"{self.skipped} steps skipped: no sample had a finite loss"] if self.skipped else []

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state; pycma's is a copy of its object, which ``torch.load(weights_only=True)`` refuses."""
        return super().state_dict() | {"strategy": copy.deepcopy(self._strategy)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            CurvebenchError: its ``strategy`` is not pycma's object; nothing is ever unpickled here.
        """
        rest = dict(state_dict)
        strategy = rest.pop("strategy")
        if strategy is not None and type(strategy).__module__.partition(".")[0] != "cma":
            raise CurvebenchError(f"CMAES: strategy = {type(strategy).__name__}: must be pycma's CMAEvolutionStrategy")
        self._strategy = copy.deepcopy(strategy)
        super().load_state_dict(rest)


class Noise:
    """What pycma calls as ``randn``: standard normal numbers of the stream of this step, which is not copied."""

    stream: Stream | None = None

    def __call__(self, *shape: int) -> np.ndarray[Any, Any]:
        """An array ``[*shape]`` of draws."""
        assert self.stream is not None
        drawn: np.ndarray[Any, Any] = self.stream.draw("normal", shape).double().cpu().numpy()
        return drawn

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _arrays(node: Any, seen: dict[int, Any]) -> list[np.ndarray[Any, Any]]:
    """All arrays in an object, its attributes, dicts and lists, each once."""
    if id(node) in seen or (callable(node) and not hasattr(node, "__dict__")):
        return []
    seen[id(node)] = node
    if isinstance(node, np.ndarray):
        return [node] if node.base is None else _arrays(node.base, seen)
    if isinstance(node, dict):
        children = list(node.values())
    elif isinstance(node, list | tuple):
        children = list(node)
    else:
        children = list(getattr(node, "__dict__", {}).values()) if not isinstance(node, type) else []
    return [array for child in children for array in _arrays(child, seen)]
