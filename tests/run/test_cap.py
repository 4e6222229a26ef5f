"""A step that cannot fit into the run's seconds is unsupported, with its predicted cost."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from curvebench import cards, tasks
from curvebench.errors import UnmetNeedError
from curvebench.methods import resolve
from curvebench.run.cap import check_cap, seconds_per_operation
from curvebench.run.execute import execute
from curvebench.spec import Budget


def check(method: str, seconds: float | None, loss: float, dimension: int = 10_000, **given: Any) -> None:
    spec = tiny.run_spec(method, seconds=seconds, **given)
    check_cap(resolve(method), spec, seconds, dimension=dimension, batch=10, loss_seconds=lambda: loss)


def test_many_queries_at_a_loss_each_are_refused_with_the_numbers() -> None:
    message = (
        r"one step of newton on least-squares asks 1 x gradient and 10,000 x hvp by its card's formula: "
        r"at least 100 s at 10 ms a loss, and the cap of the run is 20 s"
    )
    with pytest.raises(UnmetNeedError, match=message):
        check("newton", 20.0, 0.01)
    check("newton", 20.0, 0.001)


def test_losses_alone_can_be_stopped_between_two_and_share_work() -> None:
    check("zo-cge", 20.0, 0.01)
    with pytest.raises(UnmetNeedError, match="at least 1,000 s"):
        check("zo-cge", 20.0, 0.1)


def test_few_queries_are_not_even_measured() -> None:
    spec = tiny.run_spec("adam", seconds=1.0)

    def never() -> float:
        raise AssertionError

    check_cap(resolve("adam"), spec, 1.0, dimension=10**9, batch=10, loss_seconds=never)
    check("newton", None, 1e9)


def test_what_nothing_can_stop_on_the_host_is_refused_at_once() -> None:
    """pycma's ask() and tell() of 11 million parameters took more than 300 s, and no query interrupted them."""
    spec, pace = tiny.run_spec("cma-es"), 0.5e-9

    def refused(cap: float, dimension: int) -> None:
        check_cap(resolve("cma-es"), spec, cap, dimension=dimension, batch=10, loss_seconds=lambda: 0.0,
                  pace=lambda: pace)  # fmt: skip

    asked = 52 * 150 * 11_171_074  # 4 + floor(3 ln d) samples
    message = (
        rf"one step of cma-es on least-squares takes {asked:,} operations of its own by its card's formula: "
        r"at least 44 s at 0.5 ns each, and the cap of the run is 12 s"
    )
    with pytest.raises(UnmetNeedError, match=message):
        refused(12.0, 11_171_074)
    refused(60.0, 11_171_074)
    refused(12.0, 272_474)
    card = resolve("cma-es")
    assert card.host_operations(card.resolve({"population": 5}), d=100) == 5 * (150 * 100 + 100**2)
    assert card.host_operations(card.resolve({"population": 5}), d=2001) == 5 * 150 * 2001
    assert resolve("sgd").host_operations(resolve("sgd").resolve({}), d=100) == 0


def test_the_pace_of_a_machine_is_that_of_arithmetic() -> None:
    assert 1e-11 < seconds_per_operation() < 1e-6


@pytest.mark.parametrize("name", ["least-squares", "logistic-breast-cancer"])
def test_a_quick_run_without_seconds_of_its_own_has_a_minute(name: str) -> None:
    card, steps = cards.task(name), Budget(steps=10)
    assert card.at("quick").seconds is None
    assert card.cap("quick", steps) == 60.0
    assert card.cap("quick", Budget(steps=10, seconds=2.0)) == 2.0
    assert card.cap("standard", steps) is None
    assert cards.task("digits-cnn").cap("quick", steps) is None, "its seconds were taken away on purpose"


def test_the_minute_is_no_part_of_the_run_and_is_the_loops_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curvebench.cards.task_card.QUICK_SECONDS", 1e-9)
    record = execute(tiny.run_spec("sgd", steps=5))
    assert record["spec"]["budget"]["seconds"] is None
    assert record["reason"].startswith("1e-09 s spent after 1 steps")


@pytest.mark.parametrize("framework", tiny.FRAMEWORKS)
def test_an_engine_measures_a_loss_and_changes_nothing(framework: str) -> None:
    running = tiny.engine(tiny.run_spec("sgd", framework=framework), tiny.mlp())
    before, counts = tiny.parameters(running), running.counts()
    assert 0 < running.loss_seconds() < 5
    assert tiny.relative(before, tiny.parameters(running)) == 0
    assert running.counts() == counts


def test_a_run_that_cannot_take_a_step_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curvebench.run.engine_torch.TorchEngine.loss_seconds", lambda self: 1.0)
    assert tasks.load(tiny_card(), "quick", 0).dimension == 100
    record = execute(tiny.run_spec("newton", steps=1, seconds=5.0))
    assert record["status"] == "unsupported"
    assert "at least 101 s at 1e+03 ms a loss, and the cap of the run is 5 s" in record["reason"]


def tiny_card() -> Any:
    return cards.task("least-squares")
