"""The dual of entropic optimal transport, a smooth convex function whose curvature is a matrix of masses.

``f(u, v) = sum_ij exp(eta (u_i + v_j - C_ij)) / eta - <a, u> - <b, v> + const``, a log-linear model of the ``n x n``
masses: sample ``i`` puts out the logarithms of row ``i``, the criterion is Poisson's, and the constant is
``<a b', C> - log(n / eta) / eta``. Adding a number to ``u`` and taking it from ``v`` changes nothing, so the Hessian is
singular in one direction. By weak duality every plan ``P`` with marginals ``a`` and ``b`` proves
``f >= const - <C, P> - sum_ij P_ij (log P_ij - 1) / eta``; at the minimum a plan closes the gap.
Instances: ``assignment`` (costs uniform in [0, 1], uniform masses), ``densities`` (squared distance between two
densities on the line). Shapes: ``C [n, n]``, ``u, v [n]``, outputs ``[batch, n]``.
Reference: Tang et al. 2024, "Accelerating Sinkhorn Algorithm with Sparse Newton Iterations", for instances and ``eta``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.problem import Problem, Split, batch_size, generator

Array = npt.NDArray[np.float64]


class Instance(NamedTuple):
    """Costs ``[n, n]`` and the two marginals ``[n]``, each of sum 1."""

    cost: Array
    a: Array
    b: Array


class Solution(NamedTuple):
    """Potentials, the value of ``f`` there, and what a feasible plan proves that no value can be below."""

    u: Array
    v: Array
    value: float
    bound: float


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``kind`` (``assignment`` or ``densities``), ``n``, ``eta``, ``init`` (deviation of the start).

    Raises:
        ValueError: an unknown kind, n < 2, or eta that is not positive.
    """
    options: Mapping[str, Any] = scale.options
    n, eta = int(options["n"]), float(options["eta"])
    if eta <= 0:
        raise ValueError(f"transport: eta = {eta}: must be positive")
    cost, a, b = instance(str(options["kind"]), n)
    constants = {"cost": cost}
    start = float(options["init"]) * generator(card.name, seed_block, "init").standard_normal((2, n))
    parameters = {"u": start[0], "v": start[1]}
    shift = float(np.log(n / eta))

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], rows: Any) -> Any:
        return eta * (p["u"][rows][:, None] + p["v"] - c["cost"][rows]) + shift

    assert card.optimum is not None
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        train=Split(np.arange(n), n / eta * a[:, None] * b),
        criterion="poisson",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, parameters, constants),
        jax_apply=jax_expression(outputs, constants),
        batch=batch_size(scale),
        optimum=card.optimum.value,
    )


def instance(kind: str, n: int) -> Instance:
    """The same for every seed block.

    Raises:
        ValueError: an unknown kind, or n < 2.
    """
    if n < 2:
        raise ValueError(f"transport: n = {n}: must be at least 2")
    if kind == "assignment":
        cost = generator("transport", "instance", f"{kind}/{n}").uniform(0, 1, (n, n))
        return Instance(cost, np.full(n, 1 / n), np.full(n, 1 / n))
    if kind == "densities":
        x = (np.arange(n) + 0.5) / n
        a = np.exp(-((x - 0.25) ** 2) / (2 * 0.08**2)) + 0.02
        b = np.exp(-((x - 0.45) ** 2) / (2 * 0.06**2)) + 0.7 * np.exp(-((x - 0.8) ** 2) / (2 * 0.05**2)) + 0.02
        return Instance((x[:, None] - x) ** 2, a / a.sum(), b / b.sum())
    raise ValueError(f"transport: kind = {kind!r}: must be 'assignment' or 'densities'")


def constant(at: Instance, eta: float) -> float:
    """What ``f`` has beside the negative dual."""
    return float(at.a @ at.cost @ at.b - np.log(len(at.a) / eta) / eta)


def value(at: Instance, eta: float, u: Array, v: Array) -> float:
    """``f(u, v)``."""
    masses = np.exp(eta * (u[:, None] + v - at.cost))
    return float(masses.sum() / eta - at.a @ u - at.b @ v) + constant(at, eta)


def lower_bound(at: Instance, eta: float, masses: Array) -> float:
    """What the plan next to ``masses [n, n]`` proves: rows, then columns cut to their sums, the rest spread evenly."""
    plan = masses * np.minimum(1, at.a / masses.sum(axis=1))[:, None]
    plan = plan * np.minimum(1, at.b / plan.sum(axis=0))
    rows, columns = at.a - plan.sum(axis=1), at.b - plan.sum(axis=0)
    if (left := rows.sum()) > 0:
        plan = plan + np.outer(rows, columns) / left
    logarithms = np.log(np.where(plan > 0, plan, 1.0))
    return constant(at, eta) - float(np.sum(plan * at.cost) + np.sum(plan * (logarithms - 1)) / eta)


def solve(at: Instance, eta: float, *, sinkhorn: int = 200, newton: int = 60) -> Solution:
    """Sinkhorn's iterations on logarithms, then Newton's method with halving; ``v`` starts at 0."""
    log_a, log_b = np.log(at.a), np.log(at.b)
    v = np.zeros(len(at.b))
    for _ in range(sinkhorn):
        u = (log_a - _log_sum(eta * (v - at.cost))) / eta
        v = (log_b - _log_sum(eta * (u[:, None] - at.cost).T)) / eta
    n = len(u)
    free = np.concatenate([np.ones(n), -np.ones(n)]) / np.sqrt(2 * n)  # the direction in which nothing changes
    for _ in range(newton):
        masses = np.exp(eta * (u[:, None] + v - at.cost))
        rows, columns = masses.sum(axis=1), masses.sum(axis=0)
        gradient = np.concatenate([rows - at.a, columns - at.b])
        if np.abs(gradient).max() < 1e-16:
            break
        hessian = eta * np.block([[np.diag(rows), masses], [masses.T, np.diag(columns)]])
        step = np.linalg.solve(hessian + eta / n * np.outer(free, free), gradient)
        t, here = 1.0, value(at, eta, u, v)
        while value(at, eta, u - t * step[:n], v - t * step[n:]) > here + 1e-16 and t > 1e-6:
            t /= 2
        u, v = u - t * step[:n], v - t * step[n:]
    return Solution(u, v, value(at, eta, u, v), lower_bound(at, eta, np.exp(eta * (u[:, None] + v - at.cost))))


def _log_sum(x: Array) -> Array:
    top = x.max(axis=1)
    found: Array = top + np.log(np.exp(x - top[:, None]).sum(axis=1))
    return found
