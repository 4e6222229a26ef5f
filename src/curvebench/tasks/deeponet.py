"""DeepONet learns the antiderivative: from ``v`` at m sensors to ``s(y) = int_0^y v`` at any y in [0, 1].

``G(v)(y) = sum_k b_k(v) t_k(y) + bias``: a branch network of the sensors' values times a trunk network of the point, a
bilinear head that couples all their parameters. ``f(theta) = mean (G(v_i)(y_i) - s_i(y_i))^2 / 2``; the metric is the
mean squared error on functions that were not trained on.
Inputs ``v``: Gaussian random fields with covariance ``exp(-(x - x')^2 / (2 l^2))``, l = 0.2, drawn on a fine grid and
integrated there by the trapezoidal rule. Shapes: inputs ``[batch, m + 1]`` (sensors, then y), outputs ``[batch]``.
Reference: Lu et al., "Learning nonlinear operators via DeepONet", 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.autoencoder import widths
from curvebench.tasks.mlp import initial
from curvebench.tasks.problem import Problem, Split, batch_size, generator

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

Array = npt.NDArray[np.float64]
GRID = 201
"""Points on which the random fields are drawn and integrated."""


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``sensors``, ``hidden`` (of both networks), ``functions``, ``held_out``, ``points`` (per function).

    Raises:
        ValueError: sensors or points outside [1, 201].
    """
    options: Mapping[str, Any] = scale.options
    sensors, functions, held, points = (int(options[key]) for key in ("sensors", "functions", "held_out", "points"))
    if not (1 <= sensors <= GRID and 1 <= points <= GRID):
        raise ValueError(f"deeponet: sensors = {sensors}, points = {points}: must lie in [1, {GRID}]")
    hidden = widths(str(options["hidden"]))
    rng = generator(card.name, seed_block, "init")
    branch, trunk = [sensors, *hidden], [1, *hidden]
    parameters = {f"branch.{name}": value for name, value in initial(rng, branch).items()}
    parameters |= {f"trunk.{name}": value for name, value in initial(rng, trunk).items()}
    parameters["bias"] = np.zeros(1)
    train, validation, test = (
        antiderivatives(part, count, sensors, points)
        for part, count in (("train", functions), ("validation", held), ("test", held))
    )
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters={"bias": parameters.pop("bias"), **parameters},
        train=train,
        validation=validation,
        test=test,
        criterion="squared",
        metric="squared-error",
        torch_module=lambda: torch_deeponet(branch, trunk),
        jax_apply=jax_deeponet(len(hidden)),
        batch=batch_size(scale),
    )


def antiderivatives(part: str, functions: int, sensors: int, points: int) -> Split:
    """``functions x points`` samples; the same functions for every seed block."""
    rng = generator("deeponet", "instance", f"{part}/{functions}/{points}")
    x = np.linspace(0, 1, GRID)
    covariance = np.exp(-((x[:, None] - x) ** 2) / (2 * 0.2**2)) + 1e-10 * np.eye(GRID)
    fields = rng.standard_normal((functions, GRID)) @ np.linalg.cholesky(covariance).T
    steps = (fields[:, 1:] + fields[:, :-1]) / (2 * (GRID - 1))
    integrals = np.concatenate([np.zeros((functions, 1)), np.cumsum(steps, axis=1)], axis=1)
    at = np.linspace(0, GRID - 1, sensors).round().astype(int)
    asked = rng.integers(0, GRID, (functions, points))
    inputs = np.concatenate([np.repeat(fields[:, at], points, axis=0), x[asked].reshape(-1, 1)], axis=1)
    return Split(inputs, np.take_along_axis(integrals, asked, axis=1).reshape(-1))


def torch_deeponet(branch: list[int], trunk: list[int]) -> nn.Module:
    """The torch twin; the trunk ends with its activation, the branch does not."""
    import torch
    from torch import nn

    from curvebench.tasks.mlp import torch_mlp

    class DeepONet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))
            self.branch = torch_mlp(branch, "tanh")
            self.trunk = torch_mlp(trunk, "tanh")

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            product: torch.Tensor = self.branch(inputs[:, :-1]) * torch.tanh(self.trunk(inputs[:, -1:]))
            return product.sum(1) + self.bias

    return DeepONet()


def jax_deeponet(depth: int) -> Any:
    """The jax twin."""

    def build(train: bool) -> Apply:
        import jax.numpy as jnp

        from curvebench.tasks.layers_jax import linear

        def network(params: dict[str, Any], name: str, hidden: Any, tap: Any) -> Any:
            for layer in range(depth):
                hidden = linear(params, f"{name}.{2 * layer}", hidden, tap)
                hidden = hidden if layer == depth - 1 else jnp.tanh(hidden)
            return hidden

        def apply(params: dict[str, Any], buffers: dict[str, Any], inputs: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
            coefficients = network(params, "branch", inputs[:, :-1], tap)
            basis = jnp.tanh(network(params, "trunk", inputs[:, -1:], tap))
            return (coefficients * basis).sum(1) + params["bias"], {}

        return apply

    return build
