"""Problems of milliseconds in both frameworks, and one way to ask either framework's oracle the same question.

Everything is smooth (no ReLU), so finite differences need no luck.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from curvebench import methods
from curvebench.cards import MethodCard
from curvebench.oracle import ledger
from curvebench.oracle.batchnorm_torch import BatchNorm2d
from curvebench.oracle.jax import JaxOracle
from curvebench.oracle.torch import TorchOracle
from curvebench.spec import Budget, Query, RunSpec
from curvebench.tasks.layers_jax import batch_norm, conv2d, linear
from curvebench.tasks.least_squares import jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split
from curvebench.tasks.runtime_jax import JaxTask
from curvebench.tasks.runtime_torch import TorchTask

with warnings.catch_warnings():  # torch's own forward mode compiles its rules with torch.jit, which torch deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("torch._decomp.decompositions_for_jvp")

# A plugin of pytest may have loaded NumPy before the environment said one thread; on a busy machine two threads of
# OpenBLAS wait for each other a hundred times longer than they compute.
threadpool_limits(1, user_api="blas")

Arrays = dict[str, np.ndarray]
ALL = frozenset(Query)
FRAMEWORKS = ("torch", "jax")


# -- problems ----------------------------------------------------------------------------------------------------------


def _parameters(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    return {name: rng.standard_normal(shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}


def squared(l2: float = 0.0, batch: int | None = None) -> Problem:
    """Least squares: 12 samples, 4 parameters."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((12, 4)), rng.standard_normal(12)
    gram = a.T @ a / 12 + l2 * np.eye(4)
    best = np.linalg.solve(gram, a.T @ b / 12)
    optimum = float(np.mean((a @ best - b) ** 2) / 2 + l2 / 2 * best @ best)
    return Problem("tiny-squared", 0, {"0.weight": rng.standard_normal((1, 4))}, Split(a, b), "squared", "gap",
                   lambda: torch_linear(4), jax_linear, batch=batch, l2=l2, optimum=optimum)  # fmt: skip


def logistic(l2: float = 0.0) -> Problem:
    """Logistic regression: 12 samples, 4 parameters."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((12, 4)), np.sign(rng.standard_normal(12))
    return Problem("tiny-logistic", 0, {"0.weight": rng.standard_normal((1, 4))}, Split(x, y), "logistic", "gap",
                   lambda: torch_linear(4), jax_linear, l2=l2, optimum=0.0)  # fmt: skip


def _classes(name: str, shapes: Mapping[str, tuple[int, ...]], sample: tuple[int, ...], module: Any, apply: Any,
             *, l2: float = 0.0, n: int = 10, batch: int | None = None, **more: Any) -> Problem:  # fmt: skip
    rng = np.random.default_rng(2)
    train = Split(rng.standard_normal((n, *sample)), rng.integers(0, 3, n))
    held = Split(rng.standard_normal((7, *sample)), rng.integers(0, 3, 7))
    return Problem(name, 0, _parameters(rng, shapes), train, "cross-entropy", "accuracy", module, apply, l2=l2,
                   batch=batch, validation=held, test=held, **more)  # fmt: skip


def mlp(l2: float = 0.0, batch: int | None = None) -> Problem:
    """linear 3-4, tanh, linear 4-3, cross-entropy: 31 parameters."""

    def apply(params: Any, buffers: Any, x: Any, tap: Any) -> Any:
        return linear(params, "2", jax.numpy.tanh(linear(params, "0", x, tap)), tap), {}

    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (3, 4), "2.bias": (3,)}
    return _classes("tiny-mlp", shapes, (3,), lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)),
                    lambda train: apply, l2=l2, batch=batch)  # fmt: skip


def twice(l2: float = 0.0) -> Problem:
    """One linear layer used twice."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.tanh(self.layer(x)))

    def apply(params: Any, buffers: Any, x: Any, tap: Any) -> Any:
        return linear(params, "layer", jax.numpy.tanh(linear(params, "layer", x, tap)), tap), {}

    return _classes("tiny-twice", {"layer.weight": (3, 3), "layer.bias": (3,)}, (3,), Twice, lambda train: apply, l2=l2)


def conv(l2: float = 0.0) -> Problem:
    """3x3 convolution with bias and padding, tanh, 3x3 convolution of stride 2 without bias, tanh, linear."""

    def module() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 3, stride=2, padding=1, bias=False), nn.Tanh(),
            nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip

    def apply(params: Any, buffers: Any, x: Any, tap: Any) -> Any:
        hidden = jax.numpy.tanh(conv2d(params, "0", x, tap, padding=1))
        hidden = jax.numpy.tanh(conv2d(params, "2", hidden, tap, stride=2, padding=1))
        return linear(params, "5", hidden.reshape(len(hidden), -1), tap), {}

    shapes = {"0.weight": (3, 2, 3, 3), "0.bias": (3,), "2.weight": (2, 3, 3, 3), "5.weight": (3, 8), "5.bias": (3,)}
    return _classes("tiny-conv", shapes, (2, 4, 4), module, lambda train: apply, l2=l2, n=6)


def norm(l2: float = 0.0, batch: int | None = 5) -> Problem:
    """Convolution, BatchNorm, tanh, mean over positions, linear; mini-batches of 5 out of 10."""

    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    def module() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, bias=False), BatchNorm2d(3), nn.Tanh(), Pool(), nn.Linear(3, 3)
        )

    def build(train: bool) -> Any:
        def apply(params: Any, buffers: Any, x: Any, tap: Any) -> Any:
            statistics: dict[str, Any] = {}
            hidden = conv2d(params, "0", x, tap, padding=1)
            hidden = jax.numpy.tanh(batch_norm(params, buffers, "1", hidden, statistics, train=train))
            return linear(params, "4", hidden.mean(axis=(2, 3)), tap), statistics

        return apply

    shapes = {"0.weight": (3, 2, 3, 3), "1.weight": (3,), "1.bias": (3,), "4.weight": (3, 3), "4.bias": (3,)}
    buffers = {"1.running_mean": np.zeros(3), "1.running_var": np.ones(3)}
    return _classes("tiny-norm", shapes, (2, 4, 4), module, build, l2=l2, batch=batch, buffers=buffers)


PROBLEMS: dict[str, Callable[..., Problem]] = {
    "squared": squared, "logistic": logistic, "mlp": mlp, "twice": twice, "conv": conv, "norm": norm,
}  # fmt: skip


def tangent(problem: Problem, seed: int = 3) -> Arrays:
    """A direction in parameter space."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(p.shape) for name, p in problem.parameters.items()}


def dot(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> float:
    """Inner product of two trees."""
    return float(sum(np.vdot(a[name], b[name]) for name in a))


def shifted(params: Mapping[str, np.ndarray], step: float, v: Mapping[str, np.ndarray]) -> Arrays:
    """``params + step v``."""
    return {name: p + step * v[name] for name, p in params.items()}


def relative(a: Any, b: Any) -> float:
    """Largest difference over the larger norm, over arrays or trees of them."""
    left, right = flat(a), flat(b)
    assert left.shape == right.shape, (left.shape, right.shape)
    scale = max(np.abs(left).max(initial=0), np.abs(right).max(initial=0), 1e-300)
    return float(np.abs(left - right).max(initial=0) / scale)


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree as one vector, dicts by key."""
    if isinstance(tree, Mapping):
        tree = [tree[key] for key in sorted(tree)]
    if isinstance(tree, list | tuple):
        return np.concatenate([flat(item) for item in tree]) if tree else np.zeros(0)
    return np.asarray(tree, np.float64).reshape(-1)


# -- one question, two frameworks --------------------------------------------------------------------------------------


class Torch:
    """A torch oracle over a problem, at step 0's batch; answers are NumPy."""

    def __init__(self, problem: Problem, needs: Collection[Query] = ALL, device: str = "cpu") -> None:
        self.problem = problem
        self.task = TorchTask(problem, torch.device(device), torch.float64)
        self.oracle = TorchOracle(self.task.objective, needs, 7, "reference")
        self.oracle.begin_step(0, self.task.batch(0))

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
        like = self.oracle.parameters[0]
        return [torch.tensor(arrays[name]).to(like) for name in self.oracle.names]

    def names(self, values: Any) -> Arrays:
        return dict(zip(self.oracle.names, (v.detach().cpu().numpy() for v in values), strict=True))

    def ask(self, query: str, params: Arrays | None = None, v: Arrays | None = None, **at: Any) -> Any:
        """One query at a fresh point, at the live parameters or at ``params``."""
        point = self.oracle.at(None if params is None else self.tensors(params), **at)
        return self.answer(point, query, v)

    def answer(self, point: Any, query: str, v: Arrays | None = None) -> Any:
        found = getattr(point, query)(*([] if v is None else [self.tensors(v)]))
        if query in ("loss", "jvp"):
            assert found.shape == ()
            return float(found)
        if query == "layer_statistics":
            return {name: tuple(tuple(t.cpu().numpy() for t in part) for part in s) for name, s in found.items()}
        return self.names(found)

    def counts(self) -> dict[str, int]:
        return ledger.as_dict(self.oracle.counts)


class Jax:
    """The same for jax; each question is one jitted function, compiled once per problem."""

    def __init__(self, problem: Problem, needs: Collection[Query] = ALL, device: str = "cpu") -> None:
        self.problem = problem
        self.needs = frozenset(needs)
        self.device = jax_device(device)
        with jax.enable_x64(True):
            self.task = JaxTask(problem, self.device, np.float64)
        self._counts = np.zeros(len(ledger.COLUMNS), np.int64)
        self._asked: dict[Any, Any] = {}

    def trace(self, function: Callable[[JaxOracle, Any], Any], params: Arrays | None = None, *more: Any) -> Any:
        """``function(oracle, params, *more)`` under jit; what it asked is added to the counts."""

        def run(params: Any, data: Any, rows: Any, buffers: Any, *more: Any) -> Any:
            oracle = JaxOracle(self.task.objective, self.needs, self.task.batch(data, rows), np.int32(0),
                               jax.random.key(0), buffers, tuple(self.problem.parameters), np.dtype(np.float64),
                               7, "reference")  # fmt: skip
            return function(oracle, params, *more), oracle.counts()

        with jax.enable_x64(True):
            if function not in self._asked:
                self._asked[function] = jax.jit(run)
            params = self.problem.parameters if params is None else params
            out, counts = self._asked[function](
                {n: jax.device_put(p, self.device) for n, p in params.items()}, self.task.data, self.task.rows(0),
                self.task.buffers, *more,
            )  # fmt: skip
            self._counts += np.asarray(counts)
            return jax.tree.map(np.asarray, out)

    def ask(self, query: str, params: Arrays | None = None, v: Arrays | None = None, **at: Any) -> Any:
        """One query at a fresh point."""
        found = self.trace(self._question(query, tuple(sorted(at.items()))), params, *([] if v is None else [v]))
        return self.plain(query, found)

    def _question(self, query: str, at: Any) -> Any:
        key = (query, at)
        if key not in self._asked:
            self._asked[key] = lambda oracle, params, *v: getattr(oracle.at(params, **dict(at)), query)(*v)
        return self._asked[key]

    @staticmethod
    def plain(query: str, found: Any) -> Any:
        if query in ("loss", "jvp"):
            assert found.shape == ()
            return float(found)
        if query == "layer_statistics":
            return {name: (tuple(s.inputs), tuple(s.output_gradients)) for name, s in found.items()}
        return found

    def counts(self) -> dict[str, int]:
        return ledger.as_dict(self._counts)


@functools.cache
def asker(framework: str, name: str, l2: float = 0.0) -> Any:
    """A shared oracle over a named problem (compiled once); do not test counts on it."""
    return {"torch": Torch, "jax": Jax}[framework](PROBLEMS[name](l2))


def jax_device(device: str) -> Any:
    """The jax device of that name; skips where jax has none."""
    import pytest

    try:
        return jax.devices(device)[0]
    except RuntimeError:
        pytest.skip(f"jax sees no {device} device")


# -- runs --------------------------------------------------------------------------------------------------------------


@functools.cache
def card(method: str) -> MethodCard:
    """A shipped method's card."""
    return methods.resolve(method)


def run_spec(method: str = "sgd", task: str = "least-squares", framework: str = "torch", *, needs: Any = None,
             steps: int = 10, seconds: float | None = None, seed_block: int = 0, draws: str = "native",
             dtype: str = "float64", device: str = "cpu", scale: str = "quick", **given: Any) -> RunSpec:  # fmt: skip
    """A resolved run."""
    found = methods.resolve(method, needs, framework)
    return RunSpec(task=task, scale=scale, method=method, hyperparameters=found.resolve(given),
                   needs=tuple(sorted(str(q) for q in found.needs)), framework=framework, device=device, dtype=dtype,
                   seed_block=seed_block, budget=Budget(steps, seconds), draws=draws)  # fmt: skip


def engine(spec: RunSpec, problem: Problem) -> Any:
    """The framework's engine over any problem."""
    found = methods.resolve(spec.method, spec.needs, spec.framework)
    if spec.framework == "torch":
        from curvebench.run.engine_torch import TorchEngine

        return TorchEngine(spec, problem, found, 1)
    from curvebench.run.engine_jax import JaxEngine

    return JaxEngine(spec, problem, found, 1)


def parameters(running: Any) -> Arrays:
    """The live parameters of an engine, as NumPy."""
    if hasattr(running, "oracle"):
        values = (p.detach().cpu().numpy().copy() for p in running.oracle.parameters)
        return dict(zip(running.oracle.names, values, strict=True))
    return {name: np.array(value) for name, value in running.carry[0].items()}


@contextmanager
def jax_restored() -> Iterator[None]:
    """Whatever a run sets in jax's configuration is set back: engines do so for a process of their own.

    Meanwhile programs are compiled fast: they run for microseconds.
    """
    names = (
        "jax_enable_x64", "jax_platforms", "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes",
        "jax_disable_most_optimizations",
    )  # fmt: skip
    before = {name: jax.config.values[name] for name in names}
    jax.devices()  # every backend is up before a run restricts the platforms
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
