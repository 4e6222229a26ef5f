"""Statements about speed: textbook rates, slopes in time and in dimension, stability, first against second order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from curvebench.procedures.certify.lab import Run, problem
from curvebench.procedures.certify.statement import Measured, Statement
from curvebench.tasks.expression import jax_expression, torch_expression
from curvebench.tasks.problem import Problem, Split

PINN: dict[str, Any] = {"hidden": "24", "interior": 300, "boundary": 80, "held_out": 500}
"""A smaller instance of the card's: the matrix of Levenberg-Marquardt costs d products a step."""


def statements() -> Iterator[Statement]:
    """The statements of this file."""
    yield Statement(
        "gradient-descent-rate",
        "gradient descent at lr 2/(L + mu) contracts by (kappa - 1)/(kappa + 1) a step on a quadratic of kappa 100; "
        "value: measured over predicted logarithm",
        lambda: _rate("sgd", math.log(99 / 101), lr=2 / 1.01), low=0.95, high=1.05,
    )  # fmt: skip
    yield Statement(
        "nesterov-rate",
        "Nesterov's method at lr 1/L contracts by 1 - 1/sqrt(kappa) a step there; value: as above",
        lambda: _rate("nesterov", math.log(0.9), lr=1.0, momentum=9 / 11), low=0.95, high=1.05,
    )  # fmt: skip
    yield Statement(
        "heavy-ball-cycles",
        "heavy ball at lr 1/9, momentum 4/9 cycles on the piecewise quadratic with f' = 25 x, x + 24, 25 x - 24 from "
        "3.3, where gradient descent at 1/9 converges; value: distance of three iterates from those three steps later",
        _heavy_ball, high=1e-6,
    )  # fmt: skip
    yield Statement(
        "sensing-over-parameterised-slope",
        "gradient descent on matrix sensing with k > r: slope of log ||XX' - M||^2 in log T from 400 to 6,400 steps",
        _sensing_slope, low=-2.2, high=-1.5,
    )  # fmt: skip
    yield Statement(
        "sensing-exact-linear",
        "the same with k = r is linear: error below 1e-9 after 400 steps",
        lambda: _sensing("matrix-sensing-exact", 400), high=1e-9,
    )  # fmt: skip
    yield Statement(
        "sensing-asymmetric-linear",
        "the same with two unbalanced factors is linear: error falls by 1e3 from 400 to 1,600 steps; value: the factor",
        _sensing_asymmetric, high=1e-3,
    )  # fmt: skip
    yield Statement(
        "zeroth-order-slope-spsa",
        "queries of two-point random directions to f / f_0 = 1e-3 grow with slope 1 +- 0.15 in d = 30, 100, 300",
        lambda: _queries("zo-sgd"), low=0.85, high=1.15,
    )  # fmt: skip
    yield Statement(
        "zeroth-order-slope-cge",
        "the same for coordinate-wise differences",
        lambda: _queries("zo-cge"), low=0.85, high=1.15,
    )  # fmt: skip
    yield Statement(
        "sgd-trace-bound",
        "SGD with single samples ends on the diagonal network at a minimum whose Hessian has trace <= 2/lr = 40",
        lambda: _stability("trace", 1, 8000), high=40.0,
    )  # fmt: skip
    yield Statement(
        "gradient-descent-trace-free",
        "full-batch gradient descent from the same start and lr ends at a minimum with a larger trace than 2/lr = 40",
        lambda: _stability("trace", "full", 2000), low=40.0,
    )  # fmt: skip
    yield Statement(
        "gradient-descent-eigenvalue-bound",
        "and with largest eigenvalue <= 2/lr = 40",
        lambda: _stability("eigenvalue", "full", 2000), high=40.0,
    )  # fmt: skip
    yield Statement(
        "pinn-second-order",
        "Levenberg-Marquardt reaches relative L2 error 1e-3 on a PINN (24 units, 380 points) within 70 steps",
        lambda: _pinn("levenberg-marquardt", 70, 10), high=1e-3,
    )  # fmt: skip
    yield Statement(
        "pinn-first-order",
        "Adam at lr 0.01 stays above 1e-2 there for 2,000 steps",
        lambda: _pinn("adam", 2000, 200, lr=0.01), low=1e-2,
    )  # fmt: skip


def _rate(method: str, predicted: float, **given: Any) -> Measured:
    """Slope of ``log f / 2`` between steps 300 and 600; Nesterov's double root leaves 2 % of bias there."""
    run = Run(problem("quadratic-rotated", condition=100.0), method, **given)
    run.steps(300)
    first = run.loss()
    run.steps(300)
    slope = math.log(run.loss() / first) / 600
    return Measured(slope / predicted, f"{math.exp(slope):.6f} a step, predicted {math.exp(predicted):.6f}")


def _piecewise() -> Problem:
    """One-dimensional, continuous slope: ``f' = 25 x`` (x < 1), ``x + 24`` (1 <= x < 2), ``25 x - 24`` (x >= 2)."""

    def value(xp: Any, p: Mapping[str, Any], c: Mapping[str, Any], inputs: Any) -> Any:
        x = p["x"]
        middle, right = x * (x > 1) + 1.0 * (x <= 1) - 1, x * (x > 2) + 2.0 * (x <= 2) - 2
        # 12.5 x^2 with the slope's excess over 25 x taken out beyond 1 and put back beyond 2
        return 12.5 * x**2 - 12 * middle**2 + 12 * right**2 + 0 * inputs[:, 0]

    start = {"x": np.array([3.3])}
    return Problem("piecewise", 0, start, Split(np.zeros((1, 1)), np.zeros(1)), "mean", "gap",
                   lambda: torch_expression(value, start), jax_expression(value), optimum=0.0)  # fmt: skip


def _heavy_ball() -> Measured:
    ball, descent = Run(_piecewise(), "momentum", lr=1 / 9, momentum=4 / 9), Run(_piecewise(), "sgd", lr=1 / 25)
    slow = Run(_piecewise(), "sgd", lr=1 / 25)
    ball.steps(300)
    seen = []
    for _ in range(6):
        ball.steps(1)
        seen.append(float(ball.parameters()["x"][0]))
    for run in (descent, slow):
        run.steps(300)
    period = max(abs(a - b) for a, b in zip(seen[:3], seen[3:], strict=True))
    converged = abs(float(descent.parameters()["x"][0]))
    points = ", ".join(f"{x:.3f}" for x in sorted(seen[:3]))
    off = max(abs(x - y) for x, y in zip(sorted(seen[:3]), (-1.802, 0.647, 2.116), strict=True))
    if converged > 1e-6 or off > 1e-2:
        return Measured(math.inf, f"cycle {points}; gradient descent at {converged:.1e}")
    return Measured(period, f"cycle {points}; gradient descent ends at {converged:.1e}")


def _sensing(name: str, steps: int) -> Measured:
    from curvebench.tasks.matrix_sensing import low_rank, recovery

    run = Run(problem(name), "sgd", lr=0.1)
    run.steps(steps)
    return Measured(recovery(run.parameters(), low_rank(30, 2)))


def _sensing_slope() -> Measured:
    from curvebench.tasks.matrix_sensing import low_rank, recovery

    run, truth, done = Run(problem("matrix-sensing-over"), "sgd", lr=0.1), low_rank(30, 2), 0
    times, errors = (400, 1600, 6400), []
    for time in times:
        run.steps(time - done)
        done = time
        errors.append(recovery(run.parameters(), truth))
    slope = float(np.polyfit(np.log(times), np.log(errors), 1)[0])
    return Measured(slope, "error " + ", ".join(f"{e:.1e}" for e in errors))


def _sensing_asymmetric() -> Measured:
    early, late = (_sensing("matrix-sensing-asymmetric", steps).value for steps in (400, 1600))
    return Measured(late / early, f"error {early:.1e}, {late:.1e}")


def _queries(method: str) -> Measured:
    dimensions, needed = (30, 100, 300), []
    for d in dimensions:
        on = problem("zeroth-order-box", d=d)
        single = method == "zo-sgd"
        given: dict[str, Any] = {"lr": 1 / (d + 2), "queries": 1} if single else {"lr": 1.0}
        run = Run(on, method, central=True, **given)
        start, steps = run.loss(), 0
        while run.loss() > 1e-3 * start and steps < 100 * d:
            run.steps(d // 10 if single else 1)
            steps += d // 10 if single else 1
        counts = run.counts()
        if sum(count for query, count in counts.items() if query not in ("loss", "samples", "draws")):
            return Measured(math.inf, f"{method} asked for more than losses: {counts}")
        needed.append(counts["loss"])
    slope = float(np.polyfit(np.log(dimensions), np.log(needed), 1)[0])
    return Measured(slope, "queries " + ", ".join(str(n) for n in needed))


def _stability(which: str, batch: int | str, steps: int) -> Measured:
    from curvebench.tasks.diagonal_network import sharpness

    on = problem("diagonal-network", batch=batch)
    run = Run(on, "sgd", lr=0.05)
    run.steps(steps)
    trace, eigenvalue = sharpness(on.train.inputs, on.train.targets, run.parameters())
    if run.loss() > 1e-12:
        return Measured(math.nan, f"not at a minimum: loss {run.loss():.1e}")
    return Measured(
        trace if which == "trace" else eigenvalue, f"trace {trace:.1f}, largest eigenvalue {eigenvalue:.1f}"
    )


def _pinn(method: str, steps: int, every: int, **given: Any) -> Measured:
    run, best = Run(problem("pinn-poisson", **PINN), method, **given), math.inf
    for _ in range(steps // every):
        run.steps(every)
        best = min(best, run.metric())
    return Measured(best)
