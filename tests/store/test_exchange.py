"""Merging, importing, exporting: nothing twice, nothing lost, and the first released schema is read for ever."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from synthetic import append_many, make, quick_study

from curvebench.cli.main import cli
from curvebench.errors import StoreError
from curvebench.store import MIGRATIONS, SCHEMA, Record, Store
from curvebench.store.exchange import import_records, merge

FIRST = Path(__file__).parents[1] / "golden" / "records" / "schema-1.json"


def test_the_first_released_schema_is_read(records: Path) -> None:
    """The file is never changed: whoever raises SCHEMA adds what brings it up."""
    data = json.loads(FIRST.read_text())
    assert data["schema"] == 1
    assert set(range(1, SCHEMA)) <= set(MIGRATIONS), "a migration is missing"
    one = Record.from_json(data)
    assert (one.spec.id, one.status.value) == (data["keys"]["run"], data["status"])
    assert one.schema == SCHEMA
    assert one.curve.metric == tuple(data["curve"]["metric"])
    assert one.crossing is None or one.crossing.step == data["crossing"]["step"]
    taken = import_records(Store(records), FIRST)
    assert (taken.new, taken.there, taken.refused) == (1, 0, ())
    assert Store(records).read() == [one]
    assert import_records(Store(records), FIRST.parent).there == 1


def test_an_older_schema_is_brought_up(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a migration will do: here schema 2 renames a status's reason and 3 adds nothing."""
    old = make().to_json()

    def first(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "reason": f"migrated: {data['reason']}"}

    monkeypatch.setattr("curvebench.store.record.SCHEMA", SCHEMA + 2)
    for number, change in ((SCHEMA, first), (SCHEMA + 1, dict)):
        monkeypatch.setitem(MIGRATIONS, number, change)
    file = records.parent / "old.jsonl"
    file.write_text(json.dumps(old) + "\n\n" + json.dumps(old | {"schema": SCHEMA + 3}) + "\n")
    taken = import_records(Store(records), file)
    assert taken.new == 1
    assert "newer curvebench" in taken.refused[0]
    assert Store(records).read()[0].reason.startswith("migrated: ")


def test_merge_takes_what_is_missing(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    ours.append(make(seed=0))
    theirs.append(make(seed=0))  # the same record
    theirs.append(make(seed=1))
    ours.append(make(seed=2, reason="ours"))
    theirs.append(make(seed=2, reason="theirs"))  # the same attempt, another run of it
    before = {p.name: p.read_bytes() for p in theirs.files()}
    taken = merge(ours, theirs)
    assert (taken.new, taken.there) == (2, 1)
    assert {(r.spec.seed_block, r.attempt, r.reason) for r in ours.read() if r.spec.seed_block == 2} == {
        (2, 1, "ours"),
        (2, 2, "theirs"),
    }
    assert merge(ours, theirs).new == 0
    assert {p.name: p.read_bytes() for p in theirs.files()} == before, "the source is only read"


def test_what_cannot_be_merged_is_named(tmp_path: Path) -> None:
    theirs = Store(tmp_path / "theirs")
    theirs.append(make(seed=0)).write_text("{")
    path = theirs.append(make(seed=1))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    taken = merge(Store(tmp_path / "ours"), theirs)
    assert taken.new == 0
    assert len(taken.refused) == 2
    assert path.exists(), "nothing of the source is set aside"
    result = CliRunner().invoke(cli, ["merge", str(theirs.folder), "--into", str(tmp_path / "ours")])
    assert result.exit_code == 2
    assert "0 new, 0 were there, 2 left out" in result.output


def test_two_machines_append_over_a_shared_folder(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, as two machines with a key each; the folder has no hard links, as some network shares."""
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    writers = [context.Process(target=append_many, args=(str(records), 30, who, start)) for who in (1, 2)]
    for writer in writers:
        writer.start()
    start.set()
    other = make(keys__machine="cd" * 32)
    for _ in range(10):
        Store(records).append(other)
    for writer in writers:
        writer.join(60)
    found, problems = Store(records).scan()
    assert problems == []
    assert len(found) == 70
    assert len({r.name for r in found}) == 70


def test_import_refuses_with_a_sentence(records: Path) -> None:
    store = Store(records)
    bad = records.parent / "x.json"
    bad.write_text("[1]")
    with pytest.raises(StoreError, match="must hold a record"):
        import_records(store, bad)
    bad.write_text("{")
    with pytest.raises(StoreError, match="not valid JSON"):
        import_records(store, bad)
    bad.write_text('{"schema": 1}')
    assert "record of run ?" in import_records(store, bad).refused[0]


def test_export_and_import_are_inverse(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    store = Store(tmp_path / "records")
    for record in quick_study(1):
        store.append(record)
    out = tmp_path / "all.parquet"
    result = CliRunner().invoke(cli, ["export", str(out), "--records", str(store.folder)])
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out)
    assert len(table) == 48
    assert {"spec.task", "spec.method", "crossing.step", "curve.metric", "provenance.git.commit"} <= set(table)
    again = CliRunner().invoke(cli, ["import", str(out), "--records", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    assert Store(tmp_path / "again").read() == store.read()


def test_benchopt_s_columns(tmp_path: Path) -> None:
    """The columns that benchopt's result pages read (benchopt 1.10, plotting/default_plots.py)."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    store = Store(tmp_path / "records")
    for record in quick_study(2):
        store.append(record)
    folder = tmp_path / "bench"
    result = CliRunner().invoke(
        cli, ["export", str(folder), "--format", "benchopt", "--records", str(store.folder), "--task", "least-squares"]
    )
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(folder / "outputs" / "curvebench.parquet")
    needed = {"objective_name", "solver_name", "dataset_name", "idx_rep", "stop_val", "time", "objective_value"}
    assert needed <= set(table)
    assert "data_name" not in table, "benchopt renames that to dataset_name, which would then be there twice"
    assert {"platform", "platform-release", "platform-architecture", "version-numpy"} <= set(table)
    assert table["solver_name"].nunique() == 16
    assert sorted(table["idx_rep"].unique()) == [0, 1]
    one = table[(table["solver_name"] == "Adam[torch]") & (table["idx_rep"] == 0)]
    record = next(r for r in store.read() if (r.spec.task, r.spec.method, r.spec.framework, r.spec.seed_block)
                  == ("least-squares", "adam", "torch", 0))  # fmt: skip
    assert one["objective_value"].tolist() == list(record.curve.metric)
    assert one["time"].tolist() == list(record.curve.seconds)
    compile((folder / "objective.py").read_text(), "objective.py", "exec")
    assert CliRunner().invoke(cli, ["export", str(folder), "--records", str(tmp_path / "none")]).exit_code == 2
