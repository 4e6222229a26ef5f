"""A regularised two-layer ReLU network in the plane, with a certificate of its global minimum from convex duality.

``f(W, a) = ||sum_j a_j (X w_j)_+ - y||^2 / 2 + beta/2 (||W||^2 + ||a||^2)``, ``X [n, 2]`` (one feature and a constant).
Its minimum over networks of any width equals the maximum of the dual

``g(v) = ||y||^2/2 - ||v - y||^2/2`` subject to ``|v' (X u)_+| <= beta`` for every unit vector ``u``

(Pilanci and Ergen 2020; Mishkin, Sahiner and Pilanci 2022). In the plane the constraint can be checked exactly: the
unit circle falls into arcs on which the pattern ``X u > 0`` is constant, and on an arc ``v' (X u)_+`` is a sinusoid
whose extremes are its peak or the arc's ends. Any dual point, scaled until it is feasible, is a lower bound; the
residual of a global minimiser attains it. So an upper bound (a network) and a lower bound (its scaled residual) prove
each other.
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


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``n`` (samples), ``units``, ``beta``, ``noise``; the minimum stands on the card.

    The criterion is a mean over samples: outputs and targets carry sqrt(n).
    """
    options: Mapping[str, Any] = scale.options
    n, units, beta = int(options["n"]), int(options["units"]), float(options["beta"])
    x, y = data(n, float(options["noise"]))
    rng = generator(card.name, seed_block, "init")
    parameters = {"w": rng.standard_normal((units, 2)) / np.sqrt(2), "a": rng.standard_normal(units) / np.sqrt(units)}
    root = n**0.5

    def outputs(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        hidden = inputs @ p["w"].T
        return root * ((hidden * (hidden > 0)) @ p["a"])

    assert card.optimum is not None
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        train=Split(x, root * y),
        criterion="squared",
        metric="gap",
        torch_module=lambda: torch_expression(outputs, parameters),
        jax_apply=jax_expression(outputs),
        batch=batch_size(scale),
        l2=beta,
        optimum=card.optimum.value,
    )


def data(n: int, noise: float) -> tuple[Array, Array]:
    """``X [n, 2]``: points in [-1, 1] and a constant; ``y [n]`` = sin(3 x) plus noise."""
    rng = generator("relu-certificate", "instance", str(n))
    points = np.sort(rng.uniform(-1, 1, n))
    return np.stack([points, np.ones(n)], axis=1), np.sin(3 * points) + noise * rng.standard_normal(n)


class Extreme(NamedTuple):
    """The unit vector at which ``|v' (X u)_+|`` is largest, and the value."""

    direction: Array
    value: float


def extreme(x: Array, v: Array) -> Extreme:
    """Exact maximum of ``|v' (X u)_+|`` over the unit circle."""
    ends = _ends(x)
    starts, stops = ends, np.append(ends[1:], ends[0] + 2 * np.pi)
    middle = (starts + stops) / 2
    active = x @ _unit(middle) > 0  # [n, arcs]
    slopes = (x * v[:, None]).T @ active  # v' D X: [2, arcs]
    peak = np.arctan2(slopes[1], slopes[0])
    candidates = np.concatenate([starts, stops, *(_inside(peak + s, starts, stops) for s in (0.0, np.pi))])
    u = _unit(candidates)
    values = np.abs(v @ np.maximum(x @ u, 0))
    best = int(values.argmax())
    return Extreme(u[:, best], float(values[best]))


def _inside(angles: Array, starts: Array, stops: Array) -> Array:
    turned = starts + (angles - starts) % (2 * np.pi)
    return turned[turned <= stops]


def lower_bound(x: Array, y: Array, v: Array, beta: float) -> float:
    """The dual value of ``v``, scaled to be feasible by the factor that is best for it."""
    reach = extreme(x, v).value
    limit = beta / reach if reach > 0 else np.inf
    scale = min(limit, float(v @ y / (v @ v)))  # the unconstrained best factor along v
    return float(y @ y / 2 - np.sum((scale * v - y) ** 2) / 2)


class Certificate(NamedTuple):
    """A network's value and a dual lower bound: the minimum lies between; ``units`` are active."""

    upper: float
    lower: float
    units: int


def certify(x: Array, y: Array, beta: float, rounds: int = 60, tolerance: float = 1e-9) -> Certificate:
    """Minimise ``||sum_g s_g (X w_g)_+ - y||^2 / 2 + beta sum_g ||w_g||`` by adding one (sign, arc) a round.

    That is the network's objective at balanced layers, ``||w_g|| = |a_j| ||w_j||``. Within an arc ``w_g`` is a
    combination ``p e_start + q e_stop`` with ``p, q >= 0`` of the arc's ends, in which the objective is convex: SLSQP
    solves for all active arcs; the next one is where the residual violates the dual constraint most.
    """
    from scipy.optimize import minimize

    ends = _ends(x)
    edge = _unit(ends)  # arc g lies between the edges g - 1 and g
    hidden, cosine = np.maximum(x @ edge, 0), np.einsum("ij,ij->j", edge, np.roll(edge, 1, axis=1))
    sign, arc, weights = np.zeros(0), np.zeros(0, np.int64), np.zeros((2, 0))
    upper, lower = float(y @ y / 2), 0.0

    def value(flat: Array) -> tuple[float, Array]:
        p, q = flat.reshape(2, -1)
        before, after, between = hidden[:, arc - 1], hidden[:, arc], cosine[arc]
        residual = (before * p + after * q) @ sign - y
        norms = np.sqrt(np.maximum(p * p + q * q + 2 * p * q * between, 1e-300))
        slopes = (sign * (residual @ before) + beta * (p + q * between) / norms,
                  sign * (residual @ after) + beta * (q + p * between) / norms)  # fmt: skip
        return float(residual @ residual / 2 + beta * norms.sum()), np.concatenate(slopes)

    for _ in range(rounds):
        residual = y - (hidden[:, arc - 1] * weights[0] + hidden[:, arc] * weights[1]) @ sign
        upper = value(weights.reshape(-1))[0] if len(arc) else upper
        lower = max(lower, lower_bound(x, y, residual, beta))
        if upper - lower <= tolerance:
            break
        u = extreme(x, residual).direction
        new = int(np.searchsorted(ends, np.arctan2(u[1], u[0]) % (2 * np.pi) - 1e-12) % len(ends))
        side = float(np.sign(residual @ np.maximum(x @ u, 0)))
        if not np.any((sign == side) & (arc == new)):
            sign, arc = np.append(sign, side), np.append(arc, new)
            inside = np.linalg.lstsq(np.stack([edge[:, new - 1], edge[:, new]], axis=1), u, rcond=None)[0]
            weights = np.concatenate([weights, 1e-3 * np.maximum(inside, 1e-6)[:, None]], axis=1)
        found = minimize(value, weights.reshape(-1), jac=True, method="SLSQP", bounds=[(0, None)] * weights.size,
                         options={"maxiter": 2000, "ftol": 1e-16})  # fmt: skip
        weights = np.maximum(found.x.reshape(2, -1), 0)
        kept = weights.sum(axis=0) > 1e-13
        sign, arc, weights = sign[kept], arc[kept], weights[:, kept]
    return Certificate(upper, lower, len(arc))


def _ends(x: Array) -> Array:
    """Angles in [0, 2 pi) at which some sample's pattern changes, ascending."""
    edges: Array = np.concatenate([np.arctan2(x[:, 1], x[:, 0]) + s * np.pi / 2 for s in (-1, 1)]) % (2 * np.pi)
    return np.sort(edges)


def _unit(angle: Array) -> Array:
    return np.stack([np.cos(angle), np.sin(angle)])
