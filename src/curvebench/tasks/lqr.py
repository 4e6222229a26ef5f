"""Policy search on a linear-quadratic regulator: the average cost of a linear policy, minimum by Riccati's equation.

``x' = A x + B u + w``, ``u = -K x + s e``, cost ``x'x + u'u``, ``w`` and ``e`` standard normal:
``f(K) = tr(P_K (I + s^2 B B')) + s^2 m`` with ``P_K = sum_t F^t' (I + K'K) F^t``, ``F = A - B K``. The sum is taken
over 4,096 steps by twelve doublings: exact to rounding where the policy is stable, and huge or not finite where it is
not, so that no unstable policy looks good, as the solution of Lyapunov's equation would make it. ``f`` is not convex;
its only stationary point among stable policies is the minimum (Fazel et al. 2018).
Shapes: ``A [n, n]``, ``B [n, m]``, ``K [m, n]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]
DOUBLINGS = 12
"""2^12 steps: ``F^t`` of a spectral radius of 0.99 is below 1e-17 then."""


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n`` (states), ``m`` (controls), ``radius`` (spectral, of A), ``noise`` (s), ``init`` (of K)."""
    options: Mapping[str, Any] = scale.options
    n, m, noise = int(options["n"]), int(options["m"]), float(options["noise"])
    a, b = system(n, m, float(options["radius"]))
    start = {"gain": float(options["init"]) * generator(card.name, seed_block, "init").standard_normal((m, n))}
    constants = {"a": a, "b": b, "identity": np.eye(n), "noise": np.eye(n) + noise**2 * b @ b.T}

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        found = cost_to_go(c["identity"] + p["gain"].T @ p["gain"], c["a"] - c["b"] @ p["gain"])
        return (found * c["noise"]).sum()[None] + m * noise**2

    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=start,
        train=Split(np.zeros((1, 1)), np.zeros(1)),
        criterion="mean",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, start, constants),
        jax_apply=jax_expression(outputs, constants),
        batch=batch_size(scale),
        optimum=optimal(a, b, noise)[1],
    )


def cost_to_go(stage: Any, closed: Any) -> Any:
    """``sum_t F^t' Q F^t`` over 2^12 steps for a stage cost ``Q`` and a closed loop ``F``, both ``[n, n]``."""
    total, power = stage, closed
    for _ in range(DOUBLINGS):
        total, power = total + power.T @ total @ power, power @ power
    return total


def system(n: int, m: int, radius: float) -> tuple[Array, Array]:
    """``A`` of the given spectral radius and ``B`` with columns of norm about 1; the same for every seed block.

    Raises:
        ValueError: not 1 <= m <= n, or a radius outside (0, 1): the start, near K = 0, must be stable.
    """
    if not (1 <= m <= n and 0 < radius < 1):
        raise ValueError(f"lqr: n = {n}, m = {m}, radius = {radius}: need 1 <= m <= n and 0 < radius < 1")
    rng = generator("lqr", "instance", f"{n}/{m}")
    a = rng.standard_normal((n, n))
    return radius / np.abs(np.linalg.eigvals(a)).max() * a, rng.standard_normal((n, m)) / np.sqrt(n)


def optimal(a: Array, b: Array, noise: float) -> tuple[Array, float, float]:
    """``(K*, f*, residual)``: from Riccati's equation, whose relative residual says how well it was solved."""
    from scipy.linalg import solve_discrete_are

    n, m = b.shape
    p = solve_discrete_are(a, b, np.eye(n), np.eye(m))
    gain: Array = np.linalg.solve(np.eye(m) + b.T @ p @ b, b.T @ p @ a).astype(np.float64)
    residual = np.eye(n) + a.T @ p @ (a - b @ gain) - p
    least = float(np.sum(p * (np.eye(n) + noise**2 * b @ b.T)) + m * noise**2)
    return gain, least, float(np.linalg.norm(residual) / np.linalg.norm(p))
