"""The index says what the records say, is made again when it is gone or odd, and makes 100,000 records quick."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic import make, make_json, quick_study

from curvebench.store import Index, Record, Store, curve_of, indexed
from curvebench.store.folder import encode
from curvebench.store.index import FILE, names
from curvebench.store.record import Curve, Provenance

HERE = Path(__file__).parent


def filled(folder: Path) -> Store:
    store = Store(folder)
    for record in quick_study(2):
        store.append(record)
    return store


def test_a_record_from_the_index_is_the_record_without_its_bulk(records: Path) -> None:
    store = filled(records)
    found, problems = indexed(store)
    assert problems == []
    whole = store.read()
    assert len(found) == len(whole) == 96
    for one, other in zip(found, whole, strict=True):
        for part in names(Record):
            if part not in ("curve", "ledger", "work", "provenance"):
                assert getattr(one, part) == getattr(other, part), part
        for part in names(Provenance):
            if part != "notes":
                assert getattr(one.provenance, part) == getattr(other.provenance, part), part
        assert one.spec.id == other.spec.id
        assert one.name == other.name
        assert curve_of(store, one) == other.curve


def test_three_points_of_the_curve(records: Path) -> None:
    store = Store(records)
    store.append(make(steps=500, every=30))
    (one,), _ = indexed(store)
    assert one.curve.step == (0, 240, 480)
    whole = store.read()[0].curve
    assert one.curve.metric == (whole.metric[0], whole.metric[8], whole.metric[16])
    assert {len(getattr(one.curve, name)) for name in names(Curve)} == {3}
    store.append(make(seed=1, status="unsupported"))
    assert indexed(store)[0][0].curve.step in ((), (0, 240, 480))


def test_only_what_is_new_is_read(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(records)
    indexed(store)
    read: list[str] = []
    load = Store.load
    monkeypatch.setattr(Store, "load", lambda self, path, *rest: (read.append(path.name), load(self, path, *rest)))
    assert len(indexed(store)[0]) == 96
    assert read == []
    path = store.append(make(seed=77))
    assert len(indexed(store)[0]) == 97
    assert read == [path.name]
    path.unlink()
    assert len(indexed(store)[0]) == 96


def test_it_is_hidden_and_disposable(records: Path) -> None:
    store = filled(records)
    indexed(store)
    assert (records / FILE).exists()
    assert store.scan()[1] == [], "the store does not see it"
    for odd in (b"", b"not a database at all, but long enough to be taken for one" * 20):
        (records / FILE).write_bytes(odd)
        assert len(indexed(store)[0]) == 96
    (records / FILE).unlink(missing_ok=True)
    assert len(indexed(store)[0]) == 96


def test_a_folder_that_cannot_be_written_gets_an_index_in_memory(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(records)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert len(indexed(store)[0]) == 96
    assert not (records / FILE).exists()
    assert indexed(Store(records / "nowhere")) == ([], [])
    assert not (records / "nowhere").exists()


def test_another_layout_makes_it_anew(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(records)
    indexed(store)
    monkeypatch.setattr("curvebench.store.index.VERSION", 999)
    told: list[tuple[int, int]] = []
    assert len(indexed(store, lambda done, all_: told.append((done, all_)))[0]) == 96
    assert told == [(96, 96)]


def test_what_is_no_record_is_reported(records: Path) -> None:
    store = filled(records)
    path = store.append(make(seed=5))
    path.write_text("{")
    found, problems = indexed(store)
    assert len(found) == 96
    assert [p.path for p in problems] == [path]
    newer = store.append(make(seed=6))
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"schema": 99}))
    found, problems = indexed(store)
    assert "newer curvebench" in str(problems[0])


def test_listing_by_task(records: Path) -> None:
    store = filled(records)
    index = Index(store)
    index.refresh()
    assert {r.spec.task for r in index.records("digits-cnn")} == {"digits-cnn"}
    assert sum(row[4] for row in index.counts()) == 96
    index.close()


def write_many(folder: Path, count: int) -> None:
    """So many records, without the store's fsync: 50 tasks, 20 methods, two frameworks, the rest seed blocks."""
    template = make_json(every=12)
    text = encode(Record.from_json(template))
    seeds = max(count // 2000, 1)
    done = 0
    for seed in range(seeds):
        for task in range(50):
            for method in range(20):
                for framework in ("torch", "jax"):
                    if done == count:
                        return
                    run = f"{done:016x}"[::-1]
                    data = text.replace(template["keys"]["run"], run).replace('"least-squares"', f'"task-{task:02d}"')
                    data = data.replace('"adam"', f'"method-{method:02d}"').replace('"torch"', f'"{framework}"', 1)
                    data = data.replace('"seed_block": 0', f'"seed_block": {seed}')
                    step = 100 + (37 * method + 11 * task + 13 * seed) % 90
                    data = data.replace(f'"crossing": {{"step": {template["crossing"]["step"]},',
                                        f'"crossing": {{"step": {step},')  # fmt: skip
                    shard = folder / run[:2]
                    shard.mkdir(exist_ok=True, parents=True)
                    name = f"{run}-{template['keys']['code'][:8]}-{template['keys']['machine'][:8]}-1.json"
                    (shard / name).write_text(data)
                    done += 1


SCORE = "import sys; from curvebench.cli.main import main; sys.argv[0] = 'curvebench'; main()"


def timed(*arguments: str) -> tuple[float, float]:
    """CPU seconds and peak GiB of a command of curvebench in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", SCORE, *arguments], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, after.ru_maxrss / 2**20


def test_two_thousand_records_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "records"
    write_many(folder, 2000)
    parse, parsed = Record.from_json, []

    def counted(*args: Any, **options: Any) -> Record:
        parsed.append(1)
        return parse(*args, **options)

    monkeypatch.setattr(Record, "from_json", counted)
    found, problems = indexed(Store(folder))
    assert (len(found), problems, len(parsed)) == (2000, [], 2000)
    again, problems = indexed(Store(folder))
    assert (again, problems) == (found, [])
    assert len(parsed) == 2000, "the second time it is read from the index, not from the records"


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_records(tmp_path: Path) -> None:
    """Cold index at most 40 s, then listing and full statistics at most 10 s and 1 GiB; CPU time, one thread."""
    folder = tmp_path / "records"
    write_many(folder, 100_000)
    cold, _ = timed("records", "--records", str(folder))
    listing, _ = timed("records", "--records", str(folder))
    scores, memory = timed("score", str(folder), "--axis", "step")
    print(f"cold {cold:.1f} s, listing {listing:.1f} s, statistics {scores:.1f} s, {memory:.2f} GiB")
    assert cold <= 40.0
    assert listing + scores <= 10.0
    assert memory <= 1.0
