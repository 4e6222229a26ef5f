"""The loop: the first limit met ends it, the first evaluation that meets the target is the crossing, NaN diverges."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from curvebench.run.loop import Goal, StepInterrupted, Trajectory, train
from curvebench.spec import Budget, Query, Status
from curvebench.tasks.problem import Evaluation


class Scripted:
    """An engine whose metrics are given; ``step`` may be told to run out of its budget."""

    class Counter:
        laps: tuple[float, ...] = ()
        seconds = 0.0

        def start(self) -> float:
            return time.perf_counter()

        def stop(self) -> float:
            self.seconds += 1.0
            return self.seconds

        def flush(self) -> None: ...

    def __init__(self, metrics: list[float], interrupted_at: int | None = None) -> None:
        self.clock: Any = self.Counter()
        self._metrics = iter(metrics)
        self._interrupted_at = interrupted_at
        self.steps = 0

    def step(self, step: int, deadline: float) -> None:
        if step == self._interrupted_at:
            raise StepInterrupted
        self.steps += 1

    def evaluate(self) -> Evaluation:
        value = next(self._metrics)
        return Evaluation(value, value, None)

    def counts(self) -> list[int]:
        return [2 * self.steps if q is Query.GRADIENT else 0 for q in Query] + [0, 0]


def loop(metrics: list[float], budget: Budget, goal: Goal, every: int = 1, **more: Any) -> Trajectory:
    out = Trajectory()
    train(Scripted(metrics, **more), budget, goal, every, out)
    return out


def test_the_first_evaluation_that_meets_the_target_is_the_crossing() -> None:
    out = loop([9.0, 5.0, 1.0, 3.0, 0.5], Budget(4), Goal(1.0, "min", "gap"))
    assert (out.status, out.crossing) == (Status.REACHED, {"step": 2, "seconds": 2.0, "oracle_calls": 4})
    assert out.reason == "gap 1 <= 1 at step 2"
    assert out.metric == [9.0, 5.0, 1.0, 3.0, 0.5]
    out = loop([0.1, 0.5, 0.9], Budget(2), Goal(0.8, "max", "accuracy"))
    assert (out.reason, out.crossing) == (
        "accuracy 0.9 >= 0.8 at step 2",
        {"step": 2, "seconds": 2.0, "oracle_calls": 4},
    )


def test_a_start_that_already_meets_the_target_crosses_at_the_first_evaluation_after_a_step() -> None:
    out = loop([0.0, 0.0], Budget(1), Goal(1.0, "min", "gap"))
    assert out.crossing is not None
    assert out.crossing["step"] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_divergence_ends_the_run_and_forgets_a_crossing(bad: float) -> None:
    out = loop([9.0, 0.5, bad, 1.0], Budget(9), Goal(1.0, "min", "gap"))
    assert (out.status, out.crossing, out.reason) == (Status.DIVERGED, None, f"the loss is {bad} at step 2")
    assert out.consumed == {"step": 2, "seconds": 2.0, "oracle_calls": 4}
    out = loop([bad], Budget(9), Goal(1.0, "min", "gap"))
    assert out.reason == f"the loss is {bad} at step 0"


def test_the_first_limit_met_ends_the_run_and_the_last_state_is_evaluated() -> None:
    out = loop([9.0] * 9, Budget(7), Goal(None, "min", "gap"), every=3)
    assert (out.step, out.reason) == ([0, 3, 6, 7], "7 steps spent")
    out = loop([9.0] * 9, Budget(7, 4.0), Goal(1.0, "min", "gap"), every=3)
    assert (out.step, out.reason) == ([0, 3, 4], "4 s spent after 4 steps, target gap 1 not met")
    out = loop([9.0] * 9, Budget(7, 100.0), Goal(1.0, "min", "gap"), every=3, interrupted_at=4)
    assert (out.step, out.consumed["step"]) == ([0, 3], 4)
    assert out.reason == "100 s spent inside step 5, target gap 1 not met"


def test_a_target_met_before_an_interrupted_step_is_reached() -> None:
    out = loop([9.0, 0.5, 0.5], Budget(7, 100.0), Goal(1.0, "min", "gap"), interrupted_at=2)
    assert out.status is Status.REACHED
    assert out.crossing == {"step": 1, "seconds": 1.0, "oracle_calls": 2}
