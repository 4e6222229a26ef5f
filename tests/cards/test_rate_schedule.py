"""Learning-rate schedules: their factors against the formulas and the frameworks' own, bad ones, their short form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from curvebench import cards
from curvebench.cards import RateSchedule, StudyCard
from curvebench.cards.rate_schedule import parse
from curvebench.errors import CardError
from curvebench.schedule.plan import expand


def test_without_a_word_the_rate_is_constant() -> None:
    assert RateSchedule().constant
    assert RateSchedule().multipliers(3) == (1.0, 1.0, 1.0)
    assert not RateSchedule(warmup=0.5).constant
    assert cards.task("digits-cnn").at("quick").schedule.constant


def test_linear_is_that_of_transformers_but_for_a_first_step_of_zero() -> None:
    warm = RateSchedule(kind="linear", warmup=0.25).multipliers(8)
    assert warm == pytest.approx((0.5, 1.0, *((8 - t) / 6 for t in range(2, 8))), rel=1e-15)
    assert RateSchedule(kind="linear", power=0.5).multipliers(4) == pytest.approx((1, 0.75**0.5, 0.5**0.5, 0.5))
    assert RateSchedule(kind="linear", final=0.5).multipliers(4) == pytest.approx((1, 0.875, 0.75, 0.625))


def test_cosine_and_multistep_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")

    def torchs(make: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler = make(optimizer)
        seen = []
        for _ in range(20):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return seen

    ours = RateSchedule(kind="cosine", final=0.1).multipliers(20)
    theirs = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.1))
    assert ours == pytest.approx(theirs, rel=1e-12)
    ours = RateSchedule(kind="multistep", at=(0.5, 0.75), factor=0.2).multipliers(20)
    theirs = torchs(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [10, 15], gamma=0.2))
    assert ours == pytest.approx(theirs, rel=1e-12)


def test_every_factor_lies_between_0_and_1_and_is_never_0() -> None:
    for text in ("linear:warmup=0.3", "cosine", "multistep:at=0.1+0.2", "constant:warmup=0.9"):
        assert all(0 < m <= 1 and math.isfinite(m) for m in parse(text).multipliers(7)), text
    assert parse("linear:warmup=0.9").multipliers(1) == (1.0,)  # the warm-up is the whole of it


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "stairs"}, "kind = 'stairs': must be one of constant, linear, cosine, multistep"),
        ({"warmup": 1.0}, "warmup = 1: must lie in [0, 1), a share of the steps"),
        ({"kind": "multistep"}, "at = []: must be rising shares of the steps in (0, 1), at least one"),
        ({"kind": "multistep", "at": (0.5, 0.5)}, "at = [0.5, 0.5]: must be rising"),
        ({"kind": "multistep", "at": (0.5, 1.0)}, "at = [0.5, 1.0]: must be rising"),
        ({"kind": "multistep", "at": (0.5,), "factor": 0.0}, "factor = 0: must lie in (0, 1]"),
        ({"kind": "cosine", "final": 2.0}, "final = 2: must lie in [0, 1]"),
        ({"kind": "linear", "power": 0.0}, "power = 0: must lie in (0, inf)"),
        ({"kind": "linear", "at": (0.5,)}, "at: linear has none: it belongs to multistep"),
        ({"final": 0.5}, "final: constant has none: it belongs to linear and cosine"),
    ],
)
def test_a_bad_one_is_refused_with_its_range(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r".*") as found:
        RateSchedule(**given)
    assert sentence in str(found.value)


def test_the_short_form_and_back() -> None:
    for one in (
        RateSchedule(),
        RateSchedule(kind="cosine", warmup=0.06),
        RateSchedule(kind="multistep", at=(1 / 3, 0.75), factor=0.2),
        RateSchedule(kind="linear", final=0.1),
    ):
        assert parse(str(one)) == one
    assert str(RateSchedule(kind="multistep", at=(0.5, 0.75))) == "multistep:at=0.5+0.75"
    with pytest.raises(CardError, match=r"schedule 'cosine:warm=1': warm: unknown: did you mean 'warmup'"):
        parse("cosine:warm=1")
    with pytest.raises(CardError, match="could not convert string to float: 'x'"):
        parse("cosine:warmup=x")


def test_a_card_states_it_and_a_bad_one_is_a_complaint() -> None:
    card = cards.task("digits-cnn")
    raw = {**card.to_json(), "dataset": card.dataset}
    raw = {key: value for key, value in raw.items() if value is not None}
    raw["scales"] = {"quick": {"steps": 4, "batch": 2, "evaluate_every": 2, "target": 0.5,
                               "schedule": {"kind": "multistep", "at": [0.5]}}}  # fmt: skip
    built = cards.build("tasks", raw, "test")
    assert isinstance(built, cards.TaskCard)
    assert built.at("quick").schedule == RateSchedule(kind="multistep", at=(0.5,))
    raw["scales"]["quick"]["schedule"] = {"kind": "multistep"}
    with pytest.raises(CardError, match=r"at = \[\]: must be rising shares of the steps"):
        cards.build("tasks", raw, "test")


def test_it_is_part_of_the_run_and_a_study_may_override_it() -> None:
    study = cards.study("quick")
    one = replace(study, tasks=("least-squares",), methods=("momentum",), frameworks=("torch",), seeds=1)
    assert isinstance(one, StudyCard)
    (plain,) = expand(one)
    (cosine,) = expand(replace(one, schedule=RateSchedule(kind="cosine")))
    assert plain.schedule == "constant"
    assert cosine.schedule == "cosine"
    assert plain.id != cosine.id
    assert type(cosine).from_json(cosine.to_json()) == cosine
    old = {key: value for key, value in plain.to_json().items() if key != "schedule"}
    assert type(plain).from_json(old).id == plain.id  # records from before there were schedules
