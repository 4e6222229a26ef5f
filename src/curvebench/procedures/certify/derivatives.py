"""Every derivative that a task offers, against central differences of the query below it, and torch against jax.

loss -> gradient -> Hessian product by differences along a random direction; the Gauss-Newton product by differences of
the outputs and of the criterion in them; per-sample gradients by their mean and by a batch of one. Relative errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.spec import Query
from curvebench.tasks.problem import Problem, Split

Arrays = Mapping[str, npt.NDArray[np.float64]]
SAMPLES = 24
"""Samples of the batch on which derivatives are checked."""
STEP = 1e-5


def small(problem: Problem) -> Problem:
    """The problem on its first samples, full batch."""
    from dataclasses import replace

    return replace(problem, train=Split(*(a[:SAMPLES] for a in problem.train)), batch=None)


def nearby(problem: Problem) -> dict[str, npt.NDArray[np.float64]]:
    """A point near the initial one at which nothing is zero by construction."""
    rng = np.random.default_rng(8)
    return {name: p + 0.02 * rng.standard_normal(p.shape) for name, p in problem.parameters.items()}


def direction(problem: Problem, seed: int) -> dict[str, npt.NDArray[np.float64]]:
    """A unit vector in parameter space."""
    rng = np.random.default_rng(seed)
    found = {name: rng.standard_normal(p.shape) for name, p in problem.parameters.items()}
    norm = float(np.sqrt(sum(np.vdot(v, v) for v in found.values())))
    return {name: v / norm for name, v in found.items()}


class Asker:
    """Queries of a torch oracle with NumPy in and out."""

    def __init__(self, problem: Problem) -> None:
        import torch

        from curvebench.oracle.torch import TorchOracle
        from curvebench.tasks.runtime_torch import TorchTask

        self._torch = torch
        self.task = TorchTask(problem, torch.device("cpu"), torch.float64)
        self.oracle = TorchOracle(self.task.objective, frozenset(Query))
        self.batch = self.task.batch(0)
        self.oracle.begin_step(0, self.batch)

    def __call__(self, query: Query, at: Arrays, *vectors: Arrays, batch: Any = None) -> npt.NDArray[np.float64]:
        """The answer as one vector ``[d]``, or ``[batch, d]`` for per-sample gradients."""
        needs = {query, Query.GRADIENT} if query is not Query.LOSS else {query}
        point = self.oracle.at(self.tensors(at), batch, needs)
        found = getattr(point, str(query))(*(self.tensors(v) for v in vectors))
        tensors = [found] if isinstance(found, self._torch.Tensor) else found
        rows = query is Query.PER_SAMPLE_GRADIENT
        flat = [t.detach().reshape(len(t), -1) if rows else t.detach().reshape(-1) for t in tensors]
        out: npt.NDArray[np.float64] = self._torch.cat(flat, dim=-1).numpy()
        return out

    def outputs(self, at: Arrays) -> Any:
        """The module's outputs, a tensor."""
        live = dict(zip(self.oracle.names, self.tensors(at), strict=True))
        with self._torch.no_grad():
            return self._torch.func.functional_call(self.task.objective.module, live, (self.batch[0],))

    def tensors(self, arrays: Arrays) -> list[Any]:
        """Arrays in the parameters' order."""
        return [self._torch.tensor(arrays[name]) for name in self.oracle.names]


def errors(problem: Problem, offers: tuple[Query, ...]) -> dict[str, float]:
    """Offered query -> relative error in torch."""
    problem = small(problem)
    ask, at, u, v = Asker(problem), nearby(problem), direction(problem, 3), direction(problem, 4)
    found: dict[str, float] = {}
    gradient = ask(Query.GRADIENT, at)
    along = _flat(v)
    size = float(np.linalg.norm(gradient))
    slope = (ask(Query.LOSS, _step(at, STEP, v))[0] - ask(Query.LOSS, _step(at, -STEP, v))[0]) / (2 * STEP)
    found["gradient"] = abs(float(gradient @ along) - slope) / size
    if Query.JVP in offers:
        found["jvp"] = abs(float(ask(Query.JVP, at, v)[0]) - float(gradient @ along)) / size
    if Query.HVP in offers:
        above, below = (ask(Query.GRADIENT, _step(at, s, v)) for s in (STEP, -STEP))
        found["hvp"] = _relative(ask(Query.HVP, at, v), (above - below) / (2 * STEP))
    if Query.GGNVP in offers:
        found["ggnvp"] = _gauss_newton(ask, problem, at, u, v)
    if Query.PER_SAMPLE_GRADIENT in offers:
        rows = ask(Query.PER_SAMPLE_GRADIENT, at)
        one = ask(Query.GRADIENT, at, batch=tuple(t[:1] for t in ask.batch))
        found["per_sample_gradient"] = max(_relative(rows.mean(axis=0), gradient), _relative(rows[0], one))
    return found


def _gauss_newton(ask: Asker, problem: Problem, at: Arrays, u: Arrays, v: Arrays) -> float:
    """``v' G v`` from differences of outputs and criterion; symmetry of ``G``."""
    objective, targets = ask.task.objective, ask.batch[1]
    outputs = ask.outputs(at)
    push = (ask.outputs(_step(at, STEP, v)) - ask.outputs(_step(at, -STEP, v))) / (2 * STEP)
    h = 1e-3 / max(float(push.abs().max()), 1e-300)
    above, here, below = (float(objective.criterion(outputs + s * push, targets)) for s in (h, 0.0, -h))
    curvature = (above - 2 * here + below) / h**2 + problem.l2
    left, right = ask(Query.GGNVP, at, v), ask(Query.GGNVP, at, u)
    scale = max(abs(curvature), 1e-12)
    symmetry = abs(float(left @ _flat(u)) - float(right @ _flat(v))) / scale
    return max(1e-3 * abs(float(left @ _flat(v)) - curvature) / scale, symmetry)  # second differences lose three digits


def twin_error(problem: Problem, *, products: bool = False) -> float:
    """Relative difference between torch and jax of ``f`` and of the gradient at the initial parameters, float64.

    With ``products`` also of the Hessian's product with a vector, which takes another compilation.
    """
    import jax

    from curvebench.tasks.runtime_jax import JaxTask

    problem = small(problem)
    ask = Asker(problem)
    start = problem.parameters
    loss, gradient = ask(Query.LOSS, start)[0], ask(Query.GRADIENT, start)
    with jax.enable_x64(True):
        task = JaxTask(problem, jax.devices("cpu")[0], np.float64)
        inputs, targets = task.data  # small problems are full batches of plain numbers

        def value(params: Any) -> Any:
            return task.objective.loss(task.objective.apply(params, task.buffers, inputs, None)[0], targets, params)

        other, slopes = jax.jit(jax.value_and_grad(value))(task.params)
        flat = np.concatenate([np.asarray(slopes[name]).reshape(-1) for name in start])
        found = [abs(float(other) - float(loss)) / max(abs(float(loss)), 1e-300), _relative(flat, gradient)]
        if products:
            v = direction(problem, 4)
            product = jax.jit(lambda at, along: jax.jvp(jax.grad(value), (at,), (along,))[1])(task.params, dict(v))
            along = np.concatenate([np.asarray(product[name]).reshape(-1) for name in start])
            found.append(_relative(along, ask(Query.HVP, start, v)))
    return max(found)


def _step(at: Arrays, size: float, v: Arrays) -> dict[str, npt.NDArray[np.float64]]:
    return {name: p + size * v[name] for name, p in at.items()}


def _flat(arrays: Arrays) -> npt.NDArray[np.float64]:
    return np.concatenate([a.reshape(-1) for a in arrays.values()])


def _relative(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    scale = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)), 1e-300)
    return float(np.linalg.norm(a - b)) / scale
