"""Statements about coordinates and minima: what depends on the basis, what does not, and nothing below f*."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from curvebench.procedures.certify.derivatives import direction, nearby
from curvebench.procedures.certify.lab import Array, Run, problem
from curvebench.procedures.certify.statement import Measured, Statement

CERTIFIED = (
    "least-squares-ill", "logistic-breast-cancer", "softmax-digits", "log-sum-exp", "free-features", "relu-certified",
    "bilevel-ridge", "ridge-diabetes", "transport-assignment", "lqr",
)  # fmt: skip


def statements() -> Iterator[Statement]:
    """The statements of this file."""
    yield Statement(
        "nothing-below-the-minimum",
        "L-BFGS (and Levenberg-Marquardt where it is cheap) ends at no value below f* - 1e-12 on "
        f"{', '.join(CERTIFIED)}; value: the least gap",
        _nothing_below, low=-1e-12, high=1e-2,
    )  # fmt: skip
    for method, measure in (
        ("sgd", lambda: _rotation("sgd", lr=1.0)),
        ("nesterov", lambda: _rotation("nesterov", lr=1.0, momentum=0.9)),
    ):
        yield Statement(
            f"{method}-rotation-invariant",
            f"{method}: 200 iterates on the rotated quadratic are the rotated iterates of the aligned one; "
            "value: largest relative difference",
            measure, high=1e-9,
        )  # fmt: skip
    yield Statement(
        "adam-basis-dependent",
        "Adam's loss after 300 steps is at least 1,000 times larger on the rotated quadratic than on the aligned one",
        lambda: _ratio("adam", 300, lr=0.1), low=1e3,
    )  # fmt: skip
    yield Statement(
        "diagonal-newton-exact-aligned",
        "diagonal Newton solves the aligned quadratic in one step; value: f / f_0",
        lambda: _one_step("quadratic-aligned"), high=1e-20,
    )  # fmt: skip
    yield Statement(
        "diagonal-newton-wrong-rotated",
        "diagonal Newton does not solve the rotated quadratic in 100 damped steps; value: f / f_0",
        _diagonal_rotated, low=1e-8,
    )  # fmt: skip
    yield Statement(
        "conjugate-gradients-exact",
        "conjugate gradients with full memory solve the rotated quadratic in d = 100 steps; value: f / f_0",
        _conjugate, high=1e-20,
    )  # fmt: skip
    yield Statement(
        "newton-affine-invariant",
        "undamped Newton's iterates on logistic regression in coordinates of condition number 1 and 1,000 are the same "
        "points; value: largest relative difference over 10 steps",
        lambda: _affine("newton", 10), high=1e-7,
    )  # fmt: skip
    yield Statement(
        "gradient-descent-not-affine-invariant",
        "gradient descent's iterates in these coordinates are not the same points after 10 steps; value: as above",
        lambda: _affine("sgd", 10, lr=0.5), low=1e-2,
    )  # fmt: skip
    yield Statement(
        "softmax-one-curvature",
        "on softmax-digits the Hessian and the Gauss-Newton products equal the Fisher matrix in closed form; value: "
        "largest relative difference",
        _one_curvature, high=1e-10,
    )  # fmt: skip


def _nothing_below() -> Measured:
    gaps = {}
    for name in CERTIFIED:
        run = Run(problem(name), "lbfgs")
        gaps[f"{name}, L-BFGS"] = min(list(run.losses(120, 20))) - _optimum(name)
    for name in ("least-squares-ill", "log-sum-exp"):
        run = Run(problem(name), "levenberg-marquardt")
        gaps[f"{name}, LM"] = min(list(run.losses(20, 5))) - _optimum(name)
    least = min(gaps, key=lambda key: gaps[key])
    return Measured(gaps[least], "; ".join(f"{key} {gap:.1e}" for key, gap in gaps.items()))


def _optimum(name: str) -> float:
    found = problem(name).optimum
    assert found is not None
    return found


def _rotation(method: str, **given: Any) -> Measured:
    from curvebench.tasks.quadratic import rotation

    q, worst = rotation(100), 0.0
    runs = [Run(problem(name), method, **given) for name in ("quadratic-aligned", "quadratic-rotated")]
    for _ in range(20):
        aligned, rotated = (run.parameters()["0.weight"][0] for run in runs)
        worst = max(worst, float(np.linalg.norm(q @ aligned - rotated) / np.linalg.norm(aligned)))
        for run in runs:
            run.steps(10)
    return Measured(worst)


def _ratio(method: str, steps: int, **given: Any) -> Measured:
    ends = []
    for name in ("quadratic-aligned", "quadratic-rotated"):
        run = Run(problem(name), method, **given)
        run.steps(steps)
        ends.append(run.loss())
    return Measured(ends[1] / max(ends[0], 1e-300), f"aligned {ends[0]:.1e}, rotated {ends[1]:.1e}")


def _one_step(name: str) -> Measured:
    start, end = Run(problem(name), "diagonal-newton").losses(1)
    return Measured(end / start)


def _diagonal_rotated() -> Measured:
    found = {}
    for lr in (0.01, 0.03, 0.1):  # lr 1 diverges: the diagonal underestimates the top eigenvalue
        losses = list(Run(problem("quadratic-rotated"), "diagonal-newton", lr=lr).losses(100, 100))
        found[lr] = losses[-1] / losses[0]
    finite = {lr: value for lr, value in found.items() if math.isfinite(value)}
    best = min(finite, key=lambda lr: finite[lr])
    return Measured(finite[best], f"best lr {best:g}")


def _conjugate() -> Measured:
    losses = list(Run(problem("quadratic-rotated"), "conjugate-gradient", history=100).losses(100, 100))
    return Measured(losses[-1] / losses[0])


def _affine(method: str, steps: int, **given: Any) -> Measured:
    from curvebench.tasks.logistic import transformation

    conditions, worst = (1.0, 1000.0), 0.0
    maps = [transformation(31, condition) for condition in conditions]
    runs = [Run(problem("logistic-reparametrised", coordinates=c), method, **given) for c in conditions]
    for _ in range(steps):
        for run in runs:
            run.steps(1)
        one, other = (s @ run.parameters()["phi"] for s, run in zip(maps, runs, strict=True))
        worst = max(worst, float(np.linalg.norm(one - other) / np.linalg.norm(one)))
    return Measured(worst)


def _one_curvature() -> Measured:
    from dataclasses import replace

    from curvebench.procedures.certify.derivatives import Asker
    from curvebench.spec import Query
    from curvebench.tasks.problem import Split
    from curvebench.tasks.softmax import fisher

    found = problem("softmax-digits")
    found = replace(found, train=Split(*(a[:200] for a in found.train)))
    at, v = nearby(found), direction(found, 5)
    logits = found.train.inputs @ at["0.weight"].T
    p: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    along = v["0.weight"].reshape(-1)
    truth = fisher(found.train.inputs, p) @ along + found.l2 * along
    ask = Asker(found)
    worst = max(
        float(np.linalg.norm(ask(query, at, v) - truth) / np.linalg.norm(truth)) for query in (Query.HVP, Query.GGNVP)
    )
    return Measured(worst)
