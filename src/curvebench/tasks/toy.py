"""Toy problems that take milliseconds: what the conformance test runs every method on.

``quadratic``: well-conditioned least squares in 6 dimensions. ``classifier``: a 4-8-3 tanh network on three Gaussian
blobs, mini-batches of 16, 67 parameters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from curvebench.tasks.least_squares import design, jax_linear, torch_linear
from curvebench.tasks.problem import Problem, Split, generator, kaiming_normal

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply


def quadratic(seed_block: int = 0) -> Problem:
    """Least squares with 40 samples, 6 parameters and condition number 9 of the Hessian."""
    a, b = design(40, 6, 3.0, True, 0.0)
    return Problem(
        name="toy-quadratic",
        seed_block=seed_block,
        parameters={"0.weight": generator("toy-quadratic", seed_block, "init").standard_normal((1, 6))},
        train=Split(a, b),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_linear(6),
        jax_apply=jax_linear,
        optimum=0.0,
    )


def classifier(seed_block: int = 0) -> Problem:
    """Three blobs in four dimensions, 96 training and 48 validation samples."""
    rng = generator("toy-classifier", "data", "blobs")
    centres = 2 * rng.standard_normal((3, 4))
    labels = rng.integers(0, 3, 144)
    inputs = centres[labels] + rng.standard_normal((144, 4))
    init = generator("toy-classifier", seed_block, "init")
    return Problem(
        name="toy-classifier",
        seed_block=seed_block,
        parameters={
            "0.weight": kaiming_normal(init, (8, 4), gain=1.0),
            "0.bias": np.zeros(8),
            "2.weight": kaiming_normal(init, (3, 8), gain=1.0),
            "2.bias": np.zeros(3),
        },
        train=Split(inputs[:96], labels[:96]),
        validation=Split(inputs[96:], labels[96:]),
        criterion="cross-entropy",
        metric="accuracy",
        torch_module=_torch_mlp,
        jax_apply=_jax_mlp,
        batch=16,
    )


def poisoned(problem: Problem) -> Problem:
    """The same problem with inputs that are NaN: every loss and gradient is NaN."""
    inputs = problem.train.inputs.copy()
    inputs[:] = np.nan
    return replace(problem, train=Split(inputs, problem.train.targets))


def _torch_mlp() -> nn.Module:
    from torch import nn

    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def _jax_mlp(train: bool) -> Apply:
    import jax.numpy as jnp

    from curvebench.tasks.layers_jax import linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        return linear(params, "2", jnp.tanh(linear(params, "0", inputs, tap)), tap), {}

    return apply
