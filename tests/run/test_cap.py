"""A step that cannot fit into the run's seconds is unsupported, with its predicted cost."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from curvebench import tasks
from curvebench.errors import UnmetNeedError
from curvebench.methods import resolve
from curvebench.run.cap import check_cap
from curvebench.run.execute import execute


def check(method: str, seconds: float | None, loss: float, dimension: int = 10_000, **given: Any) -> None:
    spec = tiny.run_spec(method, seconds=seconds, **given)
    check_cap(resolve(method), spec, dimension=dimension, batch=10, loss_seconds=lambda: loss)


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

    check_cap(resolve("adam"), spec, dimension=10**9, batch=10, loss_seconds=never)
    check("newton", None, 1e9)


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
    from curvebench import cards

    return cards.task("least-squares")
