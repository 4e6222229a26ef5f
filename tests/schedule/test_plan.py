"""From a study to runs: what is in, in which order, with which hyperparameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curvebench import cards
from curvebench.cards import MethodCard, StudyCard
from curvebench.errors import CardError, CurvebenchError, HyperparameterError, UnknownNameError
from curvebench.schedule import Choice, estimate, expand
from curvebench.schedule.plan import check_needs
from curvebench.spec import Budget, RunSpec, Scalar
from curvebench.store import SCHEMA, Record


def study(**changes: Any) -> StudyCard:
    content = {
        "name": "mixed",
        "title": "Mixed",
        "summary": "a study for tests",
        "tasks": ["least-squares", "logistic-breast-cancer"],
        "methods": ["sgd", "adam", "momentum", "adahessian"],
        "frameworks": ["torch", "jax"],
        "seeds": 3,
        "scale": "quick",
        "hyperparameters": "card",
    }
    card = cards.build("studies", content | changes, "mixed.toml")
    assert isinstance(card, StudyCard)
    return card


def never_tuned(method: MethodCard, task: str, framework: str) -> None:
    return None


@pytest.fixture(autouse=True)
def _no_smoke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURVEBENCH_SMOKE", raising=False)


def test_a_study_is_the_product_of_its_parts() -> None:
    specs = expand(study())
    assert len(specs) == 2 * 4 * 2 * 3
    assert len({s.id for s in specs}) == len(specs)
    assert Counter(s.framework for s in specs) == {"torch": 24, "jax": 24}


def test_a_run_is_resolved() -> None:
    spec = next(s for s in expand(study()) if s.method == "adam" and s.task == "logistic-breast-cancer")
    method, task = cards.method("adam"), cards.task("logistic-breast-cancer")
    assert spec.hyperparameters == method.resolve({})
    assert spec.needs == ("gradient",)
    assert (spec.dtype, spec.device, spec.scale, spec.source) == (task.dtype, "cpu", "quick", "card")
    assert (spec.budget.steps, spec.budget.seconds) == (task.at("quick").steps, task.at("quick").seconds)
    assert task.dataset is not None
    assert dict(spec.cards) == {
        "methods/adam": method.digest,
        "tasks/logistic-breast-cancer": task.digest,
        f"datasets/{task.dataset}": cards.dataset(task.dataset).digest,
    }
    assert RunSpec.from_json(spec.to_json()) == spec


def test_seed_blocks_follow_each_other_and_methods_are_shuffled_inside() -> None:
    specs = expand(study(seeds=8))
    blocks = [s.seed_block for s in specs]
    assert blocks == sorted(blocks)
    orders = []
    for block in range(8):
        for task in ("least-squares", "logistic-breast-cancer"):
            members = [s for s in specs if (s.seed_block, s.task) == (block, task)]
            orders.append(tuple((s.method, s.framework) for s in members))
            first = specs.index(members[0])
            assert specs[first : first + 8] == members, "what is compared runs close together"
    assert len(set(orders)) > 12, "the order differs from block to block and from task to task"
    firsts = Counter(order[0] for order in orders)
    assert max(firsts.values()) <= 6, "nobody always goes first"
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_the_order_depends_on_names_alone() -> None:
    assert expand(study()) == expand(study())
    assert [s.id for s in expand(study())] != [s.id for s in expand(study(name="other"))]
    assert Counter(s.id for s in expand(study())) == Counter(s.id for s in expand(study(name="other")))


def test_tuned_hyperparameters_are_used_where_there_are_some() -> None:
    def lookup(method: MethodCard, task: str, framework: str) -> Mapping[str, Scalar] | None:
        return {"lr": 0.25} if (method.name, task) == ("sgd", "least-squares") else None

    specs = expand(study(hyperparameters="tuned"), lookup=lookup)
    for spec in specs:
        tuned = (spec.method, spec.task) == ("sgd", "least-squares")
        assert spec.source == ("tuned" if tuned else "card")
        assert (dict(spec.hyperparameters)["lr"] == 0.25) == tuned
    assert {s.source for s in expand(study(), lookup=lookup)} == {"card"}, "the study does not ask for tuned ones"


def test_tuned_hyperparameters_that_the_card_refuses_are_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"lr = -1.0: must lie in"):
        expand(study(hyperparameters="tuned"), lookup=lambda *_: {"lr": -1.0})


def test_tuned_files_lie_beside_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curvebench.store import write_tuned

    for kind in ("methods", "tasks", "datasets"):
        (tmp_path / kind).symlink_to(cards.root() / kind)
    content = {
        "task": "least-squares",
        "method": "sgd",
        "scale": "quick",
        "framework": "torch",
        "pool": "p",
        "trials": 4,
        "hyperparameters": {"lr": 0.5},
        "metric": 1.0,
        "label": "gap",
        "cost": {"seconds": 1.0, "oracle_calls": 10},
        "runs": [],
    }
    write_tuned(tmp_path / "results" / "tuned", content, cards.method("sgd").twin)
    monkeypatch.setenv("CURVEBENCH_CARDS", str(tmp_path))
    specs = expand(study(hyperparameters="tuned", methods=["sgd"]))
    assert {(s.task, s.source, dict(s.hyperparameters)["lr"]) for s in specs} >= {("least-squares", "tuned", 0.5)}
    assert {s.source for s in specs if s.task != "least-squares"} == {"card"}


def test_a_budget_of_gradient_equivalents_is_part_of_a_run_and_of_no_run_without_it() -> None:
    """The id of a run without this limit is what it was before the limit existed: nothing stored is run again."""
    plain = expand(study(methods=["sgd"]))[0]
    limited = expand(study(methods=["sgd"], budget={"gradient_equivalents": 12.5}))[0]
    assert limited.budget == replace(plain.budget, gradient_equivalents=12.5)
    assert limited.id != plain.id
    assert set(plain.to_json()["budget"]) == {"steps", "seconds"}
    assert [RunSpec.from_json(s.to_json()) for s in (plain, limited)] == [plain, limited]
    with pytest.raises(CardError, match="gradient_equivalents"):
        study(budget={"gradient_equivalents": 0})


def test_a_budget_of_the_study_goes_before_the_tasks() -> None:
    assert {s.budget.steps for s in expand(study(budget={"steps": 7}))} == {7}
    assert {s.budget.seconds for s in expand(study(budget={"seconds": 1.5}))} == {1.5}


def test_filters() -> None:
    one = Choice(seeds=1, methods=("adam",), tasks=("least-squares",), frameworks=("jax",), device="cuda:1")
    (spec,) = expand(study(), one)
    assert (spec.method, spec.task, spec.framework, spec.device) == ("adam", "least-squares", "jax", "cuda:1")


def test_an_added_method_is_compared_with_those_that_are_kept() -> None:
    specs = expand(study(methods=["sgd", "adam"]), Choice(added=("momentum",), methods=("sgd",)))
    assert {s.method for s in specs} == {"sgd", "momentum"}
    assert {s.method for s in expand(study(methods=["sgd"]), Choice(added=("sgd",)))} == {"sgd"}


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (Choice(methods=("adm",)), "unknown method of this study: 'adm': did you mean 'adam'?"),
        (Choice(tasks=("least-square",)), "did you mean 'least-squares'?"),
        (Choice(frameworks=("tensorflow",)), "unknown framework of this study: 'tensorflow'"),
        (Choice(seeds=0), "--seeds 0: must be at least 1"),
        (Choice(added=("adamm",)), "unknown method 'adamm': did you mean 'adam'"),
        (Choice(added=("no_such_module:Thing",)), "no_such_module"),
        (Choice(added=("adam",), needs=("gradients",)), "unknown query 'gradients': did you mean 'gradient'"),
    ],
)
def test_what_does_not_hold_is_refused(choice: Choice, sentence: str) -> None:
    with pytest.raises(CurvebenchError) as error:
        expand(study(), choice)
    assert sentence in str(error.value)


def test_needs_are_words() -> None:
    assert check_needs(["hvp", "loss"]) == ("hvp", "loss")
    with pytest.raises(UnknownNameError, match="unknown query 'hessian'"):
        check_needs(["hessian"])


METHOD = """
name = "{name}"
title = "Mine"
family = "first-order"
summary = "sgd under another name"
needs = ["gradient"]
twin = false
twin_reason = "there is one only"
[hyperparameters.lr]
default = 0.01
range = "(0, inf)"
about = "step size"
[cost]
step = {{ gradient = 1 }}
state = "0"
[implementation.torch]
target = "torch.optim:SGD"
arguments = {{ lr = "$lr" }}
"""


def test_a_card_of_somebody_else_s_runs_where_it_can(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(METHOD.format(name="mine"))
    specs = [s for s in expand(study(), Choice(added=(str(path),))) if s.method == str(path)]
    assert {s.framework for s in specs} == {"torch"}
    assert len(specs) == 2 * 3
    with pytest.raises(CardError, match="implemented in torch, and only jax is asked for"):
        expand(study(), Choice(added=(str(path),), frameworks=("jax",)))


def test_smoke_caps_seeds_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    full = expand(study())
    monkeypatch.setenv("CURVEBENCH_SMOKE", "1")
    specs = expand(study())
    assert len(specs) == len(full) // 3
    assert all(s.budget.seconds is not None and s.budget.seconds <= 2.0 for s in specs)
    assert {(s.task, s.budget.steps) for s in specs} == {(s.task, s.budget.steps) for s in full}
    assert {s.budget.seconds for s in expand(study(budget={"seconds": 0.5}))} == {0.5}
    monkeypatch.setenv("CURVEBENCH_SMOKE", "0")
    assert expand(study()) == full


def test_an_estimate_takes_the_nearest_record(tmp_path: Path) -> None:
    from dummies import record, spec

    def stored(seconds: float, method: str, block: int) -> Record:
        content = record(spec(method, block), command="", git=None, concurrent=1)
        keys = {"run": spec(method, block).id, "code": "0" * 64, "machine": "0" * 64}
        content["seconds"] = {**content["seconds"], "total": seconds}
        return Record.from_json({**content, "schema": SCHEMA, "keys": keys, "attempt": 1})

    records = [stored(1.0, "a", 0), stored(2.0, "a", 1), stored(9.0, "b", 0)]
    wanted = [spec("a", 0), spec("a", 5), spec("c", 0), spec("d", 0, task="elsewhere")]
    expected = estimate(wanted, records)
    assert [round(expected.seconds[s.id] - 0.02, 9) for s in wanted] == [1.0, 1.5, 2.0, 5.0]
    assert expected.guessed == 1
    assert expected.total() == pytest.approx(9.58)
    assert expected.total(jobs=2) == pytest.approx(4.79)


def earlier(method: str, block: int, budget: Budget | None = None, task: str = "dummy", **seconds: Any) -> Record:
    """A stored dummy: ten steps in one second on the clock, 800 bytes of float64 parameters."""
    from dummies import record, spec

    run = replace(spec(method, block, task), budget=budget or Budget(10))
    content = record(run, command="", git=None, concurrent=1)
    content["seconds"] = {**content["seconds"], **seconds}
    content["consumed"] = {**content["consumed"], "seconds": 1.0}
    content["memory"] = {**content["memory"], "parameter_bytes": 800}
    keys = {"run": run.id, "code": "0" * 64, "machine": "0" * 64}
    return Record.from_json({**content, "schema": SCHEMA, "keys": keys, "attempt": 1})


def test_the_first_run_of_a_method_compiles_and_later_ones_do_not() -> None:
    from dummies import spec

    cold = {"total": 4.0, "compilation": 2.5, "cache": "miss"}
    warm = {"total": 2.0, "compilation": 0.5, "cache": "hit"}
    records = [earlier("a", 0, **cold), earlier("a", 1, **warm), earlier("a", 2, **warm)]
    wanted = [spec("a", 7), spec("b", 0), spec("b", 1)]
    expected = estimate(wanted, records).seconds
    assert [expected[s.id] for s in wanted] == pytest.approx([2.02, 4.02, 2.02])
    expected = estimate(wanted, records[:1]).seconds
    assert [expected[s.id] for s in wanted] == pytest.approx([1.52, 4.02, 1.52]), "all that is known compiled"


def test_another_budget_is_scaled_by_the_clock_and_capped_in_seconds() -> None:
    from dummies import spec

    records = [earlier("a", 0, total=1.5)]  # half a second off the clock, a tenth a step
    for budget, seconds in ((Budget(100), 10.52), (Budget(100, 3.0), 3.52), (Budget(5, 3.0), 1.02)):
        wanted = replace(spec("a", 3), budget=budget)
        assert estimate([wanted], records).seconds[wanted.id] == pytest.approx(seconds)


def test_an_unknown_method_is_judged_by_the_queries_of_its_card() -> None:
    from dummies import spec

    records = [earlier("sgd", 0, total=1.5)]
    known = [replace(spec(m), hyperparameters=cards.method(m).resolve({})) for m in ("adam", "adahessian")]
    wanted = [*known, spec("no-card", 0)]
    expected = estimate(wanted, records)
    assert expected.guessed == 0
    adam, adahessian, plain = (expected.seconds[s.id] for s in wanted)
    assert adam == pytest.approx(1.52), "one gradient a step, as SGD"
    assert 2.0 < adahessian < 5.0, "a gradient and a Hessian-vector product"
    assert plain == pytest.approx(1.52)
