"""The conformance test: what every method must do, whoever wrote it. ``curvebench check method`` and the tests run it.

On toy problems of milliseconds, for each framework that the card implements: the constructor takes the card's
arguments; some point of the search space converges; it asks what its card declares and nothing else, as often as the
card's cost says; the same seed gives the same bits; a restored snapshot continues with the same bits; the optimiser's
state has the size that the card says; a NaN becomes ``diverged``.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from curvebench.cards import MethodCard
from curvebench.errors import CurvebenchError, UnmetNeedError
from curvebench.oracle.ledger import COLUMN, check_needs
from curvebench.procedures.tune import sample
from curvebench.run.execute import cache_folder
from curvebench.run.loop import Goal, Trajectory, train
from curvebench.spec import Budget, Query, RunSpec, Scalar, Status
from curvebench.tasks import toy
from curvebench.tasks.problem import Problem

OFFERS = tuple(Query)
STEPS = 60
TRIALS = 16
DECREASE = 0.5
"""A method converges on a toy problem if some trial at least halves its loss in :data:`STEPS` steps."""
DECREASE_WITHOUT_GRADIENTS = 2 / 3
"""Of a zeroth-order method less is asked: sixty directions are few for the dozens of parameters of a toy."""

_CONVERGED: dict[tuple[str, str], dict[str, Scalar]] = {}
"""By (digest of the card, problem) the trial that converged last in this process, which the next framework tries first:
which trial converges is no part of the statement, and in jax every trial is a program to compile."""


class Finding(NamedTuple):
    """One statement about a method, whether it holds, and what was seen."""

    framework: str
    statement: str
    holds: bool
    seen: str


class _Lab:
    """Engines of one method in one framework on toy problems."""

    def __init__(self, card: MethodCard, reference: str, framework: str, device: str, dtype: str) -> None:
        self.card, self._reference, self._framework = card, reference, framework
        self._device, self._dtype = device, dtype
        module = importlib.import_module(f"curvebench.run.engine_{framework}")
        if framework == "jax":  # many engines of one program: compile it once
            module.use_cache(cache_folder() / "xla")
        self._engine: Callable[..., Any] = getattr(module, f"{framework.capitalize()}Engine")
        self._stepped: dict[str, Any] = {}

    def engine(self, problem: Problem, given: dict[str, Scalar] | None = None) -> Any:
        """A fresh engine on one thread."""
        return self._engine(self.spec(problem, given or {}), problem, self.card, 1)

    def stepped(self, problem: Problem) -> Any:
        """The engine after :data:`STEPS` steps at the card's defaults: one for all statements that only look at it."""
        if problem.name not in self._stepped:
            engine = self.engine(problem)
            for step in range(STEPS):
                engine.step(step, math.inf)
            self._stepped[problem.name] = engine
        return self._stepped[problem.name]

    def spec(self, problem: Problem, given: dict[str, Scalar]) -> RunSpec:
        """The spec of a toy run."""
        return RunSpec(
            task=problem.name, scale="quick", method=self._reference, hyperparameters=self.card.resolve(given),
            needs=tuple(sorted(str(n) for n in self.card.needs)), framework=self._framework, device=self._device,
            dtype=self._dtype, seed_block=0, budget=Budget(STEPS),
        )  # fmt: skip

    def run(self, problem: Problem, given: dict[str, Scalar] | None = None) -> Trajectory:
        """Train for :data:`STEPS` steps."""
        out = Trajectory()
        train(self.engine(problem, given), Budget(STEPS), Goal(None, "min", "loss"), STEPS // 4, out)
        return out


def conformance(
    card: MethodCard, reference: str, framework: str, device: str = "cpu", dtype: str = "float64"
) -> Iterator[Finding]:
    """Yield one finding per statement.

    Args:
        card: the method's card.
        reference: how the user names it.
        framework: one that the card implements.
        device: ``cpu``, ``cuda`` or ``cuda:i``.
        dtype: ``float32`` or ``float64``.
    """
    lab = _Lab(card, reference, framework, device, dtype)
    problems = (toy.quadratic(), toy.classifier())
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("the constructor takes the card's arguments", lambda: _constructs(lab, problems[0])),
        ("it asks only what the card declares", lambda: _asks_declared(lab, problems)),
        ("it asks as often as the card's cost says", lambda: _asks_as_stated(lab, problems[1])),
        *((f"it converges on the {p.name}", lambda p=p: _converges(lab, p)) for p in problems),
        ("the same seed gives the same bits", lambda: _repeats(lab, problems[1])),
        ("a restored snapshot continues with the same bits", lambda: _continues(lab, problems[1])),
        ("its state has the size on the card", lambda: _state_size(lab, problems[1])),
        ("a NaN becomes 'diverged'", lambda: _diverges(lab, problems[0])),
        ("an unmet need is refused before training", lambda: _refuses(lab)),
    )
    for statement, check in checks:
        try:
            yield Finding(framework, statement, True, check())
        except _NotSo as problem:
            yield Finding(framework, statement, False, str(problem))
        except Exception as error:  # the method's code may raise anything: that is the finding
            message = str(error) if isinstance(error, CurvebenchError) else f"{type(error).__name__}: {error}"
            yield Finding(framework, statement, False, message)


class _NotSo(Exception):
    """A statement does not hold; the message says what was seen."""


def _constructs(lab: _Lab, problem: Problem) -> str:
    lab.stepped(problem)
    return ", ".join(f"{name} = {value}" for name, value in lab.card.resolve({})) or "no hyperparameters"


def _asks_declared(lab: _Lab, problems: tuple[Problem, ...]) -> str:
    asked: set[Query] = set()
    for problem in problems:
        asked |= {query for query in Query if lab.stepped(problem).counts()[COLUMN[query.value]]}
    if not asked:
        raise _NotSo(f"it asked nothing in {STEPS} steps: how does it know where to go?")
    return ", ".join(sorted(str(query) for query in asked))


def _asks_as_stated(lab: _Lab, problem: Problem) -> str:
    if not lab.card.cost.step:
        return lab.card.cost.varies or "the card states no cost"
    engine = lab.stepped(problem)
    batch = problem.batch or len(problem.train)
    stated = lab.card.queries_per_step(lab.card.resolve({}), d=problem.dimension, batch=batch)
    seen = {str(query): engine.counts()[COLUMN[query.value]] / STEPS for query in Query}
    wrong = [
        f"{name}: {seen[name]:g} a step, the card says {stated.get(name, 0.0):g}"
        for name in seen
        if not _as_stated(seen[name], stated.get(name, 0.0), lab.card.family)
    ]
    if wrong:
        raise _NotSo("; ".join(wrong))
    return ", ".join(f"{name} {count:g}" for name, count in seen.items() if count)


def _as_stated(seen: float, stated: float, family: str) -> bool:
    """Equal; within a factor of three for line searches, whose cost is an average over problems."""
    if family == "quasi-newton":
        return (seen == 0) == (stated == 0) and (stated == 0 or stated / 3 <= seen <= 3 * stated)
    return math.isclose(seen, stated, rel_tol=1e-9)


def _converges(lab: _Lab, problem: Problem) -> str:
    best, how = math.inf, ""
    known = (lab.card.digest, problem.name)
    wanted = DECREASE_WITHOUT_GRADIENTS if lab.card.family == "zeroth-order" else DECREASE
    trials: list[dict[str, Scalar]] = [{}, *sample(problem.name, lab.card, TRIALS)]
    for given in sorted(trials, key=lambda trial: trial != _CONVERGED.get(known)):
        out = lab.run(problem, given)
        if out.status is not Status.DIVERGED and out.loss[-1] / out.loss[0] < best:
            best, how = out.loss[-1] / out.loss[0], ", ".join(f"{k} = {v}" for k, v in given.items()) or "defaults"
        if best <= DECREASE:
            _CONVERGED[known] = given
            return f"loss x {best:.2g} in {STEPS} steps ({how})"
    if best <= wanted:
        return f"loss x {best:.2g} in {STEPS} steps ({how})"
    raise _NotSo(
        f"no trial of {TRIALS + 1} brings the loss to x {wanted:.2g} in {STEPS} steps; the best is x {best:.2g} ({how})"
    )


def _repeats(lab: _Lab, problem: Problem) -> str:
    first, second = lab.run(problem), lab.run(problem)
    if first.loss != second.loss:
        step = next(s for s, a, b in zip(first.step, first.loss, second.loss, strict=True) if a != b)
        raise _NotSo(f"two runs with one seed differ from step {step} on: draw from the oracle, not from elsewhere")
    return f"{STEPS} steps, loss {first.loss[-1]!r} twice"


def _continues(lab: _Lab, problem: Problem) -> str:
    engine = lab.engine(problem)
    for step in range(5):
        engine.step(step, math.inf)
    middle = engine.snapshot()
    other = lab.engine(problem)
    other.step(0, math.inf)  # a state of its own, which the snapshot must replace
    other.restore(middle)
    for step in range(5, 10):
        engine.step(step, math.inf)
        other.step(step, math.inf)
    if not _same(_parameters(engine.snapshot()), _parameters(other.snapshot())):
        raise _NotSo("the parameters differ after five more steps: state_dict leaves something out")
    return "5 + 5 steps equal 10"


def _state_size(lab: _Lab, problem: Problem) -> str:
    stated = lab.card.state_numbers(lab.card.resolve({}), d=problem.dimension)
    width = 8 if lab._dtype == "float64" else 4
    seen = sum(lab.stepped(problem).state_bytes().values())
    if stated is None:
        return f"{seen} bytes; the card states none"
    formula = lab.card.cost.state
    if lab.card.twin and seen != round(stated) * width:
        at = f"{formula} numbers = {round(stated) * width} bytes at d = {problem.dimension}"
        raise _NotSo(f"{seen} bytes, the card says {at}")
    return f"{seen} bytes ({formula} numbers at d = {problem.dimension})"


def _diverges(lab: _Lab, problem: Problem) -> str:
    out = lab.run(toy.poisoned(problem))
    if out.status is not Status.DIVERGED:
        raise _NotSo(f"status {out.status} with a NaN loss")
    return out.reason


def _refuses(lab: _Lab) -> str:
    needs = tuple(lab.card.needs)
    try:
        check_needs(lab.card.name, needs, "a task that offers nothing", ())
    except UnmetNeedError as error:
        return str(error)
    raise _NotSo("a task that offers nothing was accepted")


def _parameters(snapshot: Any) -> Any:
    return snapshot["module"] if isinstance(snapshot, dict) else snapshot[0]


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(np.asarray(a[name]), np.asarray(b[name])) for name in a)
