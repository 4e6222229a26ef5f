"""A record says what its steps computed, in units of one gradient; refreshing steps stand apart."""

from __future__ import annotations

from typing import Any

import pytest

from curvebench import cards
from curvebench.clock import by_kind
from curvebench.methods.state_kinds import kind
from curvebench.oracle.ledger import COLUMNS
from curvebench.oracle.work import Work
from curvebench.run import execute
from curvebench.run import memory as memory_module
from curvebench.run.loop import Trajectory
from curvebench.run.replay import Meter, account, meter, replay
from curvebench.spec import Budget, RunSpec

each = pytest.mark.parametrize("framework", ["torch", "jax"])


def record(method: str, framework: str, task: str = "digits-cnn", steps: int = 6, **given: Any) -> dict[str, Any]:
    card = cards.method(method)
    return execute(
        RunSpec(
            task=task, scale="quick", method=method, hyperparameters=card.resolve(given),
            needs=tuple(sorted(map(str, card.needs))), framework=framework, device="cpu", dtype="float32",
            seed_block=0, budget=Budget(steps),
        )
    )  # fmt: skip


@each
def test_a_first_order_step_is_one_gradient_and_a_little(framework: str) -> None:
    out = record("sgd", framework)
    work = out["work"]
    assert work["unknown"] == []
    assert 1.0 <= work["step"]["flops"] / work["gradient"]["flops"] < 1.05
    assert work["refresh"] is None
    assert out["consumed"]["gradient_equivalents"] == pytest.approx(6, rel=0.05)
    assert out["curve"]["gradient_equivalents"][0] == 0.0
    assert out["ledger"]["gradient"] == 6, "the replay is not in the ledger"


def test_torch_and_jax_count_the_same_gradient() -> None:
    ours, theirs = (record("sgd", framework)["work"]["gradient"]["flops"] for framework in ("torch", "jax"))
    assert theirs == pytest.approx(ours, rel=0.05)


@each
def test_mezo_asks_two_losses_and_pays_two_thirds_of_a_gradient(framework: str) -> None:
    work = record("mezo", framework)["work"]
    assert 0.5 < work["step"]["flops"] / work["gradient"]["flops"] < 1.2


@each
def test_a_delayed_hessian_shows_as_two_kinds_of_step(framework: str) -> None:
    out = record("adahessian", framework, hessian_every=3, steps=9)
    work = out["work"]
    assert work["steps"] == 3
    unit = work["gradient"]["flops"]
    assert 1.0 <= work["plain"]["flops"] / unit < 1.3
    assert 1.8 < work["refresh"]["flops"] / unit < 5.0
    expected = (2 * work["plain"]["flops"] + work["refresh"]["flops"]) / 3
    assert work["step"]["flops"] == pytest.approx(expected, rel=1e-3)
    assert out["seconds"]["refresh"]["n"] == 2  # steps 3 and 6; step 0 is the first
    assert out["seconds"]["plain"]["n"] == 6
    assert out["seconds"]["step"]["n"] == 8


def test_laps_are_told_apart_by_their_place_in_the_period() -> None:
    laps = [9.0, 1.0, 1.0, 5.0, 1.0, 1.0, 7.0]
    plain, refresh = by_kind(laps, 3, [0])
    assert plain is not None
    assert refresh is not None
    assert (plain.n, plain.median, refresh.n, refresh.mean) == (4, 1.0, 2, 6.0)
    assert by_kind(laps, 3, []) == (None, None)


class Engine:
    """Every third step is dear."""

    def __init__(self) -> None:
        self.calls = 0

    def gradient_work(self, step: int) -> Work:
        return Work(100.0, 10.0)

    def step_work(self, step: int) -> Work:
        self.calls += 1
        return Work(400.0 if step % 3 == 0 else 100.0, 10.0)

    def counts(self) -> list[int]:
        return [self.calls if name == "gradient" else 0 for name in COLUMNS]


@pytest.mark.parametrize("first", range(6))
def test_a_replay_may_begin_anywhere_in_the_period(first: int) -> None:
    work, dear, meter = replay(Engine(), first, 3)
    assert meter == Meter((4.0, 1.0, 1.0), (1.0, 1.0, 1.0)), "by place in the period, wherever the replay began"
    assert [meter.at(step, step) for step in range(6)] == [0.0, 4.0, 5.0, 6.0, 10.0, 11.0]
    assert (work["plain"]["flops"], work["refresh"]["flops"], work["step"]["flops"]) == (100.0, 400.0, 200.0)
    assert dear == [0]


def test_gradient_equivalents_follow_the_queries_of_a_line_search() -> None:
    out = Trajectory(step=[0, 1, 2], oracle_calls=[0, 3, 9], consumed={"step": 2, "seconds": 1.0, "oracle_calls": 9})
    account(out, Meter((4.0,), (4.0,)))
    assert out.gradient_equivalents == [0.0, 3.0, 9.0]
    assert out.consumed["gradient_equivalents"] == 9.0
    account(out, None)
    assert out.gradient_equivalents == [None, None, None]


def test_a_meter_without_a_whole_period_takes_the_mean_and_none_has_no_unit() -> None:
    assert meter([30.0, 10.0], [3, 1], 10.0, None) == Meter((2.0,), (2.0,))
    assert meter([30.0], [3], 0.0, 0) is None
    assert Meter((2.0,), (0.0,)).calls_within(0, 5.0) is None


BUDGETS = [("sgd", {}, 7.5, 8), ("mezo", {}, 6.0, None), ("adahessian", {"hessian_every": 3}, 9.0, None)]


@each
@pytest.mark.parametrize(("method", "given", "budget", "steps"), BUDGETS, ids=[b[0] for b in BUDGETS])
def test_a_budget_of_gradient_equivalents_ends_the_run_when_it_is_consumed(
    framework: str, method: str, given: dict[str, Any], budget: float, steps: int | None
) -> None:
    card = cards.method(method)
    out = execute(
        RunSpec(task="least-squares", scale="quick", method=method, hyperparameters=card.resolve(given),
                needs=tuple(sorted(map(str, card.needs))), framework=framework, device="cpu", dtype="float32",
                seed_block=0, budget=Budget(1000, None, budget)))  # fmt: skip
    consumed, work = out["consumed"], out["work"]
    assert f"{budget:g} gradient-equivalents spent" in out["reason"]
    dearest = (work["refresh"] or work["plain"])["flops"] / work["gradient"]["flops"]
    assert budget <= consumed["gradient_equivalents"] * (1 + 1e-9), "not before it is consumed"
    assert consumed["gradient_equivalents"] < budget + dearest, "and not a step later"
    assert out["curve"]["step"][-1] == consumed["step"], "the end was looked at"
    assert steps in (None, consumed["step"])


def test_a_step_of_many_queries_is_interrupted_between_two_of_them() -> None:
    card = cards.method("zo-cge")
    out = execute(
        RunSpec(task="least-squares", scale="quick", method="zo-cge", hyperparameters=card.resolve({}),
                needs=tuple(sorted(map(str, card.needs))), framework="torch", device="cpu", dtype="float32",
                seed_block=0, budget=Budget(1000, None, 3.0)))  # fmt: skip
    one = out["work"]["step"]["flops"] / out["work"]["gradient"]["flops"]
    assert one > 3.0, "this is about a step that costs more than the budget"
    assert out["reason"].startswith("3 gradient-equivalents spent inside step 1")
    assert out["consumed"]["step"] == 0
    per_call = one / out["work"]["oracle_calls"]
    assert 3.0 <= out["consumed"]["gradient_equivalents"] < 3.0 + 2 * per_call


@each
def test_memory_is_split_and_stands_beside_the_cards_formula(framework: str) -> None:
    memory = record("adam", framework)["memory"]
    assert memory["state"] == {"moments": memory["state_bytes"]}
    assert memory["state_bytes"] == memory["state_formula"] == 2 * memory["parameter_bytes"]
    if memory["step_bytes"] is None:
        assert "not measurable" in memory["step_how"]
    else:
        assert 0 < memory["step_bytes"] < 2**30
    assert (memory["compiled"] is None) == (framework == "torch")


def test_the_state_of_kfac_is_factors_inverses_and_moments() -> None:
    kinds = record("kfac", "torch")["memory"]["state"]
    assert set(kinds) == {"factors", "inverses", "moments"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [(["mu", "fc.weight"], "moments"), (["layer", "QA"], "inverses"), (["unheard", "of"], "other"), ([], "other")],
)
def test_the_innermost_known_name_decides(path: list[str], expected: str) -> None:
    assert kind(path) == expected


def test_what_a_step_allocates_is_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 64 << 20

    def step() -> None:
        bytearray(b"x" * size)

    seen, how = memory_module.host_step_peak(step)
    if seen is None:
        pytest.skip(how)
    assert 1.9 * size < seen < 2.3 * size, "the bytes and the bytearray made of them"
    monkeypatch.setattr(memory_module, "reset_peak", lambda: False)
    assert memory_module.host_step_peak(step)[0] is None
