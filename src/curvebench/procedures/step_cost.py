"""What a step of any method costs on a small network, through the engine that runs the studies.

The network is ``inputs 16 -> width -> width -> 10`` with tanh, batches of 32 Gaussian samples, cross-entropy, float32:
``d = width^2 + 28 width + 10`` parameters. ``benchmarks/steps.py`` gives asv a row for every implementation of a card.
"""

from __future__ import annotations

import importlib
import math
import statistics
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from curvebench import cards
from curvebench.cards import MethodCard
from curvebench.errors import CurvebenchError
from curvebench.oracle.ledger import oracle_calls
from curvebench.run.execute import cache_folder
from curvebench.spec import Budget, RunSpec
from curvebench.statistics.pairs import interleave
from curvebench.tasks.problem import Problem, Split, generator, kaiming_normal

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

INPUTS, CLASSES, BATCH, SAMPLES = 16, 10, 32, 256
STEPS = 10
"""Steps of one timing: what a method refreshes every ten steps is in each."""
MOST_WORK = 5e7
"""Queries a step times parameters, above which a benchmark is not set up: a Hessian column by column, a loss for each
parameter."""


class Unaffordable(CurvebenchError):
    """One step asks more queries than a benchmark should wait for."""


class Cost(NamedTuple):
    """What one step of a method costs; all are costs: less is better.

    Args:
        oracle_calls: queries of all kinds a step, mean over :data:`STEPS` steps.
        state_bytes: what the optimiser keeps between steps.
        gradients: flops of a step over those of one gradient, mean over :data:`STEPS` steps.
        sgd_steps: seconds of a step over those of a step of SGD on the same network, median of interleaved pairs.
    """

    oracle_calls: float
    state_bytes: float
    gradients: float
    sgd_steps: float


def network(width: int) -> Problem:
    """A classifier of Gaussian inputs with two hidden layers of ``width``.

    Raises:
        ValueError: the width is below 1.
    """
    if width < 1:
        raise ValueError(f"width = {width}: must be in [1, inf)")
    rng = generator("step-cost", 0, "data")
    sizes = ((width, INPUTS), (width, width), (CLASSES, width))
    parameters = {}
    for layer, (out, into) in enumerate(sizes):
        parameters[f"{2 * layer}.weight"] = kaiming_normal(rng, (out, into), gain=1.0)
        parameters[f"{2 * layer}.bias"] = np.zeros(out)
    samples = Split(rng.standard_normal((SAMPLES, INPUTS)), rng.integers(0, CLASSES, SAMPLES))

    def torch_module() -> nn.Module:
        from torch import nn

        return nn.Sequential(
            nn.Linear(INPUTS, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, CLASSES)
        )

    return Problem(
        name=f"step-cost-{width}", seed_block=0, parameters=parameters, train=samples, validation=samples,
        criterion="cross-entropy", metric="accuracy", torch_module=torch_module, jax_apply=_jax_apply, batch=BATCH,
    )  # fmt: skip


def _jax_apply(train: bool) -> Apply:
    import jax.numpy as jnp

    from curvebench.tasks.layers_jax import linear

    del train

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        first = jnp.tanh(linear(params, "0", inputs, tap))
        return linear(params, "4", jnp.tanh(linear(params, "2", first, tap)), tap), {}

    return apply


@cache
def implementations() -> tuple[str, ...]:
    """``method/framework`` of every card and each framework that it implements, in alphabetical order."""
    return tuple(
        f"{card.name}/{framework}"
        for card in cards.load_all("methods")
        if isinstance(card, MethodCard)
        for framework in ("torch", "jax")
        if framework in card.implementation
    )


class Stepper:
    """A method on :func:`network`, ready to step; its programs are compiled.

    Args:
        implementation: ``method/framework``.
        width: of the hidden layers.
        device: ``cpu`` or ``cuda``.

    Raises:
        Unaffordable: one step asks too many queries of a network of that width.
        CurvebenchError: the method cannot be had here, or not on this device.
    """

    def __init__(self, implementation: str, width: int, device: str = "cpu") -> None:
        name, _, framework = implementation.partition("/")
        self.card: MethodCard = cards.method(name)
        problem, given = network(width), self.card.resolve({})
        asked = sum(self.card.queries_per_step(given, d=problem.dimension, batch=BATCH).values())
        if asked * problem.dimension > MOST_WORK:
            raise Unaffordable(f"{name} asks {asked:g} queries a step of {problem.dimension} parameters")
        spec = RunSpec(
            task=problem.name, scale="quick", method=name, hyperparameters=given, framework=framework, device=device,
            needs=tuple(sorted(str(need) for need in self.card.needs)), dtype="float32", seed_block=0,
            budget=Budget(10**6),
        )  # fmt: skip
        module = importlib.import_module(f"curvebench.run.engine_{framework}")
        if framework == "jax":
            module.use_cache(cache_folder() / "xla")
        self.engine: Any = getattr(module, f"{framework.capitalize()}Engine")(spec, problem, self.card, 1)
        self._wait = _waiting(framework, device, self.engine)
        self._next = 0
        self.step()  # whatever is allocated or compiled at the first step is no cost of the later ones

    def step(self, steps: int = 1) -> None:
        """Make steps and wait for the device."""
        for _ in range(steps):
            self.engine.step(self._next, math.inf)
            self._next += 1
        self._wait()

    def oracle_calls(self) -> float:
        """Queries a step, mean over :data:`STEPS` steps."""
        before = oracle_calls(self.engine.counts())
        self.step(STEPS)
        asked: int = oracle_calls(self.engine.counts()) - before
        return asked / STEPS

    def state_bytes(self) -> int:
        """Bytes that the optimiser keeps between steps."""
        return sum(self.engine.state_bytes().values())

    def gradients(self) -> float:
        """Flops of a step over those of one gradient, mean over :data:`STEPS` steps."""
        one: float = self.engine.gradient_work(self._next).flops
        flops: list[float] = []
        for _ in range(STEPS):
            flops.append(self.engine.step_work(self._next).flops)
            self._next += 1
        return statistics.fmean(flops) / one


def cost(implementation: str, width: int, device: str, pairs: int) -> Cost:
    """Everything that is no timing of its own, in one process.

    Args:
        implementation: ``method/framework``.
        width: of the hidden layers.
        device: ``cpu`` or ``cuda``.
        pairs: interleaved timings of :data:`STEPS` steps of the method and of SGD.
    """
    ours = Stepper(implementation, width, device)
    floor = Stepper(f"sgd/{implementation.partition('/')[2]}", width, device)
    return Cost(
        ours.oracle_calls(),
        ours.state_bytes(),
        ours.gradients(),
        interleave(lambda: ours.step(STEPS), lambda: floor.step(STEPS), pairs).ratio,
    )


def _waiting(framework: str, device: str, engine: Any) -> Any:
    """A function that returns when the device has done what it was given."""
    if framework == "jax":
        import jax

        return lambda: jax.block_until_ready(engine.carry)
    if device.startswith("cuda"):
        import torch

        return torch.cuda.synchronize
    return lambda: None
