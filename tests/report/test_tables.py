"""Tables are pure functions of records: golden ones, and one test per rule of the protocol."""

from __future__ import annotations

import math
from typing import Any

import pytest
from synthetic import make, quick_study

from curvebench.report import TaskTable, tables
from curvebench.report.tables import TableRow
from curvebench.statistics import interval
from curvebench.store import Record


def only(records: list[Record], **options: Any) -> TaskTable:
    (table,) = tables(records, **options)
    return table


def row_of(table: TaskTable, method: str, framework: str = "torch") -> TableRow:
    (row,) = [r for r in table.rows if (r.row.method, r.row.framework) == (method, framework)]
    return row


def cell(table: TaskTable, column: str, method: str = "adam") -> Any:
    return row_of(table, method).estimates[column]


def seeds(method: str = "adam", count: int = 3, **options: Any) -> list[Record]:
    return [make(method, seed=seed, **options) for seed in range(count)]


def noted(table: TaskTable, *words: str) -> bool:
    return any(all(word in note for word in words) for note in table.notes)


def test_one_table_per_task_and_one_row_per_method_and_framework() -> None:
    made = tables(quick_study())
    assert [t.group.setting[0] for t in made] == ["digits-cnn", "least-squares", "logistic-breast-cancer"]
    for table in made:
        pairs = [(r.row.method, r.row.framework) for r in table.rows]
        assert len(pairs) == len(set(pairs)) == 16


def test_the_numbers_are_the_mean_and_interval_over_seeds() -> None:
    runs = seeds(step_seconds=1e-3)
    table = only(runs)
    wanted = interval([r.crossing.seconds for r in runs if r.crossing])  # type: ignore[misc]
    assert cell(table, "seconds") == wanted
    assert cell(table, "step_ms").mean == pytest.approx(
        1e3 * sum(r.seconds.step.median for r in runs) / 3  # type: ignore[union-attr, misc]
    )
    assert cell(table, "memory_mib").mean == 3.0
    assert cell(table, "final").mean == pytest.approx(
        math.prod(r.final.metric for r in runs) ** (1 / 3)  # type: ignore[misc]
    )
    frame = table.frame
    assert list(frame["n"]) == [3]
    assert frame["seconds"][0] == pytest.approx(wanted.mean)
    assert frame["seconds_low"][0] == pytest.approx(wanted.low)
    assert frame["status"][0] == "reached:3"


def test_a_metric_that_is_no_gap_has_an_arithmetic_mean() -> None:
    runs = seeds(direction="max", target=0.9, values=[0.1, 0.8, 0.95])
    found = cell(only(runs), "final")
    assert (found.mean, found.geometric) == (pytest.approx(0.95), False)


def test_rows_are_sorted_best_first_and_the_empty_ones_last() -> None:
    for direction in ("min", "max"):
        values = {"sgd": 0.5, "adam": 0.1, "mezo": 0.9}
        runs = [
            make(m, seed=s, direction=direction, target=None, values=[1.0, v * (1 + 0.001 * s)])
            for m, v in values.items()
            for s in range(3)
        ]
        runs += seeds("lbfgs", status="unsupported", direction=direction)
        order = [r.row.method for r in only(runs).rows]
        best_first = ["adam", "sgd", "mezo"] if direction == "min" else ["mezo", "sgd", "adam"]
        assert order == [*best_first, "lbfgs"]


def test_the_set_within_noise_of_the_best_is_marked() -> None:
    def of(method: str, *values: float) -> list[Record]:
        return [make(method, seed=s, values=[1.0, v], target=None) for s, v in enumerate(values)]

    runs = of("adam", 1e-3, 1.1e-3, 0.9e-3) + of("sgd", 1e-3, 2e-3, 0.8e-3) + of("mezo", 0.5, 0.51, 0.52)
    table = only(runs)
    assert {r.row.method for r in table.rows if r.best} == {"adam", "sgd"}
    assert noted(table, "* cannot be told from the best")
    lost = make("sgd", seed=3, status="diverged", values=[1.0, None])
    assert {r.row.method for r in only([*runs, lost]).rows if r.best} == {"adam"}, "never a row that diverged"
    assert not any(r.best for r in only([make("adam"), make("sgd")]).rows), "one seed knows no noise"


def test_some_misses_give_a_lower_bound_and_all_misses_what_was_consumed() -> None:
    hit = {"values": [1.0, 1e-4] + [1e-5] * 49}
    miss = {"values": [1.0] * 51}
    runs = [make(seed=0, **hit), make(seed=1, **hit), make(seed=2, **miss), *seeds("sgd", **miss)]
    table = only(runs)
    found = cell(table, "step")
    assert (found.mean, found.censored, found.n) == (pytest.approx((10 + 10 + 500) / 3), 1, 3)
    assert row_of(table, "adam").reached == 2
    never = cell(table, "step", "sgd")
    assert (never.mean, never.never, never.interval) == (500.0, True, None)
    assert noted(table, "restricted mean", "lower bound")
    assert noted(table, "4 runs missed the target; all ended at the budget of 500 steps")


def test_a_miss_on_seconds_is_censored_at_the_seconds_consumed() -> None:
    runs = seeds(values=[1.0, 0.9], budget_seconds=0.5, status="budget")
    runs = [
        Record.from_json(r.to_json() | {"consumed": {"step": 10, "seconds": 0.5, "oracle_calls": 10}}) for r in runs
    ]
    table = only(runs)
    assert cell(table, "seconds").mean == 0.5
    assert noted(table, "all ended at the budget of 0.5 seconds")


def test_a_diverged_run_stays_at_risk_to_the_end_of_every_axis() -> None:
    early = make(seed=2, status="diverged", values=[1.0, 50.0, None])
    table = only([*seeds(count=2, values=[1.0] * 51), early])
    assert cell(table, "step").mean == 500.0, "not the 20 steps that it lived"
    assert cell(table, "seconds").mean > 0.9 * make().consumed.seconds  # type: ignore[operator]
    assert cell(table, "final").n == 2
    assert noted(table, "Diverged: 1 of 3 (33 %)", "adam torch 1")


def test_a_run_that_diverged_after_the_target_never_reached_it() -> None:
    data = make(seed=0).to_json() | {"status": "diverged"}
    table = only([Record.from_json(data), make(seed=1)])
    assert row_of(table, "adam").reached == 1
    assert cell(table, "step").censored == 1


@pytest.mark.parametrize("status", ["unsupported", "out_of_memory", "crashed"])
def test_failures_enter_no_mean_and_are_counted_with_their_reason(status: str) -> None:
    table = only([*seeds(count=2), make(seed=2, status=status, reason="because | of this.")])
    row = row_of(table, "adam")
    assert len(row.row.included) == 2
    assert row.statuses == {"reached": 2, status: 1}
    assert cell(table, "final").n == 2
    assert noted(table, f"{status.replace('_', ' ')}: 1 (adam torch 1: because | of this)")


def test_a_task_on_which_everything_failed_has_a_table() -> None:
    table = only([make(m, status="crashed", reason="boom") for m in ("adam", "sgd")])
    assert [r.estimates["final"] for r in table.rows] == [None, None]
    assert noted(table, "No run of this task ended with a result")
    assert noted(table, "crashed: 2 (adam torch 1, sgd torch 1: boom)")
    assert len(table.frame) == 2


def test_no_records_no_tables() -> None:
    assert tables([]) == []


def test_one_record_has_no_interval() -> None:
    table = only([make()])
    assert cell(table, "final").interval is None
    assert noted(table, "n = 1")


def test_a_curve_of_nan_is_a_row_without_value() -> None:
    table = only(seeds(values=[None, None], status="diverged"))
    assert cell(table, "final") is None
    assert row_of(table, "adam").statuses == {"diverged": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keys__machine": "ef" * 32}, "2 different machines"),
        ({"provenance__concurrent": 2}, "1 or 2 runs at a time"),
        ({"provenance__threads": 1}, "1 or 2"),
    ],
)
def test_times_that_cannot_be_compared_are_blank(change: dict[str, Any], words: str) -> None:
    table = only([*seeds(count=2), make("sgd", **change)])
    for column in ("seconds", "step_ms"):
        assert cell(table, column) is None
    assert cell(table, "step") is not None
    assert noted(table, "Time columns are blank", words)


def test_times_of_reused_curves_are_blank() -> None:
    import dataclasses

    table = only([dataclasses.replace(r, reused=True) for r in seeds()])
    assert cell(table, "seconds") is None
    assert noted(table, "Time columns are blank: 3 of 3 curves were measured on another machine")


def test_a_failed_run_elsewhere_blanks_nothing() -> None:
    table = only([*seeds(), make("sgd", status="unsupported", keys__machine="ef" * 32)])
    assert table.blank is None


def test_a_gap_below_the_resolution_counts_as_the_resolution() -> None:
    floor = 2.0**-52 * 0.25
    table = only([make(seed=s, values=[1.0, v]) for s, v in enumerate([0.0, -1e-18, floor / 2])])
    assert cell(table, "final").mean == pytest.approx(floor)
    assert noted(table, "3 runs ended below 5.6e-17")


def test_settings_of_one_method_are_rows_of_their_own() -> None:
    low = seeds(spec__hyperparameters={"lr": 0.01, "eps": 1e-8})
    high = seeds(spec__hyperparameters={"lr": 0.1, "eps": 1e-8})
    table = only(low + high)
    assert sorted(r.row.label for r in table.rows) == ["Adam (lr = 0.01)", "Adam (lr = 0.1)"]
    assert all(len(r.row.records) == 3 for r in table.rows)


def test_frameworks_with_their_own_setting_need_no_telling_apart() -> None:
    runs = [make("lbfgs", "torch", spec__hyperparameters={"lr": 0.5}), make("lbfgs", "jax")]
    assert [r.row.label for r in only(runs).rows] == ["L-BFGS", "L-BFGS"]


@pytest.mark.parametrize(
    "change",
    [{"keys__code": "f" * 64}, {"spec__cards": {"methods/adam": "9" * 64, "tasks/least-squares": "1" * 64}}],
)
def test_two_versions_of_a_row_are_never_averaged(change: dict[str, Any]) -> None:
    old = seeds(provenance__started="2025-01-01T00:00:00Z", **change)
    table = only([*old, *seeds(count=2)])
    assert len(row_of(table, "adam").row.records) == 2
    assert noted(table, "3 runs of older versions", "left out")


def test_another_version_of_the_task_is_another_task() -> None:
    cards = {"methods/sgd": "0" * 64, "tasks/least-squares": "9" * 64}
    old = seeds("sgd", provenance__started="2025-01-01T00:00:00Z", spec__cards=cards)
    table = only([*old, *seeds()])
    assert [r.row.method for r in table.rows] == ["adam"]
    assert noted(table, "3 runs of older versions")


def test_only_the_attempt_that_counts_enters() -> None:
    first = make(status="crashed", provenance__started="2026-05-01T00:00:00Z", attempt=2)
    second = make(reason="this one", provenance__started="2026-04-01T00:00:00Z")
    (row,) = only([first, second]).rows
    assert [r.reason for r in row.row.records] == ["this one"]


def test_budgets_and_devices_are_tables_of_their_own() -> None:
    runs = seeds() + [make(seed=s, budget_seconds=2.0) for s in range(2)] + [make(spec__device="cuda:0")]
    stems = [t.group.stem for t in tables(runs)]
    assert stems == ["least-squares", "least-squares-2-seconds", "least-squares-cuda-0"]


def test_a_test_metric_gets_a_column_where_there_is_one() -> None:
    assert "test" not in only(seeds()).columns
    runs = [make(seed=s, final__test=0.9 + 0.01 * s) for s in range(3)]
    assert cell(only(runs), "test").mean == pytest.approx(0.91)


def test_notes_say_where_hyperparameters_come_from() -> None:
    pool = {"pool": "sobol", "trials": 8, "hyperparameters": {"lr": 0.1}}
    assert noted(only(seeds(), pools=lambda _: pool), "tuned, 8 trials per method, chosen on validation (pool sobol)")
    other = pool | {"hyperparameters": {"lr": 0.2}}
    assert noted(only(seeds(), pools=lambda _: other), "Hyperparameters: tuned.")  # the pool has moved on since
    mixed = only([*seeds(), *seeds("sgd", spec__source="card")])
    assert noted(mixed, "the method cards' defaults (sgd)")
    assert noted(mixed, "tuned (adam)")


def test_notes_name_machine_threads_date_and_command() -> None:
    table = only(seeds())
    assert noted(table, "Example CPU, 2 cores, 24 GiB", "device cpu, float64, 2 threads, one run at a time")
    assert noted(table, "Measured 2026-03-01 to 2026-03-03 with curvebench 0.1.0")
    assert noted(table, "Command: `curvebench bench quick`")
    assert noted(only([*seeds(), make("sgd", provenance__command="other")]), "and 1 others")


def test_the_order_of_records_does_not_matter() -> None:
    runs = quick_study()
    assert [t.to_json() for t in tables(runs)] == [t.to_json() for t in tables(runs[::-1])]


def test_doubtful_times_and_unknown_operations_are_said() -> None:
    others = "other processes used 31% of its cores"
    runs = [make(seed=s, provenance__busy=others if s else None, work__unknown=["fancy"]) for s in range(3)]
    (table,) = tables(runs)
    assert "Times are doubtful in 2 runs of 3: other processes used more than a tenth of its cores." in table.notes
    assert "Gradient-equivalents enter fancy as one flop per element: no formula is known." in table.notes
