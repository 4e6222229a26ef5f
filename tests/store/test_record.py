"""A record says exactly what its schema says, or it is refused with a sentence."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make, make_json

from curvebench.errors import StoreError
from curvebench.oracle.ledger import COLUMNS
from curvebench.spec import Budget, RunSpec, Status, digest
from curvebench.store import Curve, NewerSchemaError, Record, RecordError, record


def test_json_round_trip() -> None:
    data = make_json("adahessian", "jax", 2, task="digits-cnn", direction="max", target=0.9)
    once = Record.from_json(data)
    assert once.to_json() == data
    assert Record.from_json(json.loads(json.dumps(once.to_json()))) == once


def test_values_are_typed() -> None:
    one = make()
    assert one.status is Status.REACHED
    assert one.spec.budget.steps == 500
    assert one.spec.hyperparameters == (("lr", 0.1),)
    assert one.curve.step[:3] == (0, 10, 20)
    assert one.seconds.step is not None
    assert one.seconds.step.n == 499
    assert one.name == f"{one.spec.id}-c0dec0de-abababab-1.json"


def test_nan_numpy_and_tuples_become_plain_json() -> None:
    data = make_json(values=[1.0, 0.5, 0.25])
    data["curve"]["metric"] = np.array([1.0, math.nan, math.inf])
    data["curve"]["step"] = tuple(np.arange(3))
    data["final"]["metric"] = np.float64("nan")
    data["consumed"]["step"] = np.int64(20)
    one = Record.from_json(data)
    assert one.curve.metric == (1.0, None, None)
    assert one.final.metric is None
    assert type(one.consumed.step) is int
    json.dumps(one.to_json(), allow_nan=False)


@pytest.mark.parametrize("empty", ["final", "consumed", "seconds", "memory", "ledger", "curve"])
def test_a_run_that_failed_early_may_say_null(empty: str) -> None:
    one = Record.from_json(make_json(status="unsupported") | {empty: None})
    assert Record.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("status", "fine", "status: input should be 'reached', 'budget'"),
        ("metric__direction", "down", "metric.direction: input should be 'min' or 'max'"),
        ("consumed__step", 3.5, "consumed.step: "),
        ("consumed__seconds", "3.5", "consumed.seconds: input should be a valid number"),
        ("keys__run", "XYZ", "keys.run: string should match"),
        ("keys__code", "abc", "keys.code: string should match"),
        ("attempt", 0, "attempt: input should be greater than or equal to 1"),
        ("attempt", True, "attempt: input should be a valid integer"),
        ("provenance__concurrent", 0, "provenance.concurrent: "),
        ("provenance__colour", "red", "provenance.colour: is not a key of a record"),
        ("surprise", 1, "surprise: is not a key of a record"),
        ("reused", True, "reused: is not a key of a record"),
        ("spec", {"task": "x"}, "spec: is not a run spec: "),
        ("spec", None, "spec: must be an object"),
        ("curve__loss", [], "curve: the lists must have equal length"),
        ("schema", "1", "schema: must be a whole number"),
        ("title", object(), "has no JSON form"),
    ],
)
def test_a_wrong_value_is_named(path: str, value: Any, sentence: str) -> None:
    data = make_json()
    *folders, last = path.split("__")
    place = data
    for folder in folders:
        place = place[folder]
    place[last] = value
    with pytest.raises(RecordError, match="not a record") as caught:
        Record.from_json(data)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_key_is_required() -> None:
    for key in make_json():
        data = make_json()
        del data[key]
        with pytest.raises(RecordError, match=f"{key}: (is missing|must be a whole number)"):
            Record.from_json(data)


def test_reached_needs_a_crossing() -> None:
    with pytest.raises(RecordError, match="status 'reached' needs a crossing"):
        Record.from_json(make_json() | {"crossing": None})


def test_curve_lists_of_unequal_length_are_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="equal length"):
        Curve(step=(0, 1))


@pytest.mark.parametrize("content", [[], "text", 3, None, {}])
def test_what_is_no_record_is_refused(content: object) -> None:
    with pytest.raises(RecordError, match="not a record"):
        Record.from_json(content)


def test_a_newer_schema_is_refused_with_a_sentence() -> None:
    newer = record.SCHEMA + 1
    with pytest.raises(
        NewerSchemaError, match=rf"newer curvebench \(record schema {newer}, .* {newer - 1}\): upg"
    ) as caught:
        Record.from_json(make_json() | {"schema": newer, "unheard-of": True})
    assert isinstance(caught.value, StoreError)


def test_an_older_schema_is_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = record.SCHEMA

    def first(data: dict[str, Any]) -> dict[str, Any]:
        return data | {"reason": data["reason"] + ", migrated"}

    def second(data: dict[str, Any]) -> dict[str, Any]:
        return data | {"reason": data["reason"] + " twice"}

    monkeypatch.setattr(record, "SCHEMA", now + 2)
    monkeypatch.setitem(record.MIGRATIONS, now, first)
    monkeypatch.setitem(record.MIGRATIONS, now + 1, second)
    old = make_json(reason="old")
    new = Record.from_json(old)
    assert (new.schema, new.reason) == (now + 2, "old, migrated twice")
    assert old["schema"] == now, "the caller's data stay as they are"


def test_a_gap_in_the_migrations_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = record.SCHEMA
    monkeypatch.setattr(record, "SCHEMA", now + 2)
    monkeypatch.setitem(record.MIGRATIONS, now + 1, lambda data: data)
    with pytest.raises(RecordError, match=f"no migration leads from schema {now} to {now + 2}"):
        Record.from_json(make_json())


def test_a_file_of_the_first_released_schema_is_read() -> None:
    old = json.loads((Path(__file__).parent / "schema-1.json").read_text())
    assert old["schema"] == 1
    new = Record.from_json(old)
    assert new.schema == record.SCHEMA
    assert new.curve.metric == tuple(old["curve"]["metric"])
    assert set(new.curve.gradient_equivalents) == {None}, "what was not measured is null"
    assert new.work is None
    assert new.seconds.step is not None
    assert new.seconds.step.median == old["seconds"]["step"]["median"]
    assert Record.from_json(new.to_json()) == new


def test_a_record_from_before_schedules_and_reported_columns_is_read() -> None:
    old = json.loads((Path(__file__).parent / "schema-2.json").read_text())
    assert old["schema"] == 2
    assert "schedule" not in old["spec"]
    new = Record.from_json(old)
    assert new.schema == record.SCHEMA
    assert new.spec.schedule == "constant"
    assert new.spec.id == old["keys"]["run"], "a run of then is the same run now"
    for name in ("factor_updates", "inverse_updates", "bytes_communicated"):
        assert new.ledger[name] is None, "what was not counted is null"
    assert {name: new.ledger[name] for name in old["ledger"]} == old["ledger"] | {"self_reported": ()}
    assert new.work is not None
    assert new.work.ledger == {}
    assert new.work.step.flops == old["work"]["step"]["flops"]
    assert new.spec.budget.gradient_equivalents is None
    assert Record.from_json(new.to_json()) == new


def test_what_a_schema_2_record_counted_already_is_kept() -> None:
    """Records between two releases said schema 2 and had these keys."""
    data = make_json()
    data["spec"]["schedule"] = "linear:warmup=0.1"
    data["ledger"]["factor_updates"] = 7
    old = record.migrate(json.loads(json.dumps(data | {"schema": 2})))
    assert (old["spec"]["schedule"], old["ledger"]["factor_updates"]) == ("linear:warmup=0.1", 7)


KEYS_OF_SCHEMA = {3: "607b5bcd"}
"""First digits of the hash of all keys that a record of this schema can have."""


def test_keys_that_change_need_a_new_schema() -> None:
    """Somebody's old record must never be read as if it said what only a new one says."""
    kinds = (
        RunSpec, Budget, Record, record.Keys, record.Title, record.Metric, Curve, record.Final, record.Axes,
        record.StepTime, record.Seconds, record.Cost, record.Work, record.Memory, record.Git, record.Provenance,
    )  # fmt: skip
    keys = [[kind.__name__, *sorted(field.name for field in fields(kind))] for kind in kinds]
    now = digest([*keys, sorted(COLUMNS)])[:8]
    assert KEYS_OF_SCHEMA.get(record.SCHEMA) == now, (
        f"the keys of a record changed (their hash is {now}): raise SCHEMA in store/record.py, add a migration and a "
        "file of the schema before, and enter the new number here"
    )


def test_every_schema_below_the_present_one_has_a_migration() -> None:
    assert set(record.MIGRATIONS) == set(range(1, record.SCHEMA))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_plain_json_is_json(value: Any) -> None:
    plain = record.plain_json(value)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
