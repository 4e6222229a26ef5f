"""The store loses nothing, overwrites nothing and trips over nothing."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import append_many, make, make_json, quick_study

from curvebench.errors import StoreError
from curvebench.store import Store, StoreWarning, files, folder

OTHER_MACHINE = "cd" * 32


def all_files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_append_and_read(records: Path) -> None:
    store, one = Store(records), make()
    path = store.append(one)
    assert path == records / one.keys.run[:2] / f"{one.keys.run}-c0dec0de-abababab-1.json"
    assert store.read() == [one]
    assert json.loads(path.read_text()) == one.to_json()
    assert path.read_text().count("\n") == len(one.to_json()) + 2, "one top-level key a line"


def test_the_same_run_again_is_the_next_attempt(records: Path) -> None:
    store = Store(records)
    names = [store.append(make(reason=f"try {k}")).name for k in range(1, 12)]
    assert [name.rsplit("-", 1)[1] for name in names] == [f"{k}.json" for k in range(1, 12)]
    assert [e.attempt for e in store.entries()] == list(range(1, 12)), "11 comes after 9, not after 1"
    assert {(r.attempt, r.reason) for r in store.read()} == {(k, f"try {k}") for k in range(1, 12)}


def test_attempts_of_another_code_or_machine_are_their_own(records: Path) -> None:
    store = Store(records)
    for change in ({}, {"keys__code": "e" * 64}, {"keys__machine": OTHER_MACHINE}):
        assert store.append(make(**change)).name.endswith("-1.json")


def test_an_empty_or_missing_folder_has_no_records(tmp_path: Path) -> None:
    assert Store(tmp_path / "nowhere").read() == []
    assert Store(tmp_path).read() == []
    assert Store(tmp_path / "nowhere").find("0" * 16, "0" * 64, "0" * 64) is None
    assert not (tmp_path / "nowhere").exists(), "reading makes nothing"


def test_find_needs_all_three_keys(records: Path) -> None:
    store, one = Store(records), make()
    store.append(one)
    assert store.find(one.keys.run, one.keys.code, one.keys.machine) == one
    assert store.settled(one.keys)
    for other in (
        replace(one.keys, run="0" * 16),
        replace(one.keys, code="0" * 64),
        replace(one.keys, machine="0" * 64),
        replace(one.keys, code=one.keys.code[:63] + "f"),  # the name's eight digits agree
        replace(one.keys, machine=one.keys.machine[:63] + "f"),
    ):
        assert store.find(other.run, other.code, other.machine) is None
        assert not store.settled(other)


@pytest.mark.parametrize("status", ["crashed", "timeout", "out_of_memory"])
def test_failures_of_the_machine_are_retried_on_request(records: Path, status: str) -> None:
    store, failed = Store(records), make(status=status)
    store.append(failed)
    assert store.settled(failed.keys)
    assert not store.settled(failed.keys, retry_failed=True)
    store.append(make(reason="now it works"))
    assert store.settled(failed.keys, retry_failed=True)
    store.append(make(status=status, provenance__started="2027-01-01T00:00:00Z"))
    found = store.find(failed.keys.run, failed.keys.code, failed.keys.machine)
    assert found is not None
    assert found.reason == "now it works", "a later failure does not unsettle a result"


@pytest.mark.parametrize("status", ["reached", "budget", "diverged", "unsupported"])
def test_results_are_never_retried(records: Path, status: str) -> None:
    store, one = Store(records), make(status=status)
    store.append(one)
    assert store.settled(one.keys, retry_failed=True)


def test_curves_of_another_machine_are_reused_on_request_and_marked(records: Path) -> None:
    store = Store(records)
    store.append(make(keys__machine=OTHER_MACHINE))
    mine = make()
    assert not store.settled(mine.keys)
    assert store.settled(mine.keys, reuse_curves=True)
    found = store.find(mine.keys.run, mine.keys.code, mine.keys.machine, reuse_curves=True)
    assert found is not None
    assert found.reused
    assert "reused" not in found.to_json()
    assert not store.settled(replace(mine.keys, code="0" * 64), reuse_curves=True)
    store.append(mine)
    found = store.find(mine.keys.run, mine.keys.code, mine.keys.machine, reuse_curves=True)
    assert found == mine, "this machine's own comes first"


def test_a_failure_elsewhere_is_retried_too(records: Path) -> None:
    store = Store(records)
    store.append(make(status="crashed", keys__machine=OTHER_MACHINE))
    assert not store.settled(make().keys, reuse_curves=True, retry_failed=True)


# ---- what is not a record ------------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    data = json.loads(content)
    bad: dict[str, Callable[[], bytes]] = {
        "truncated": lambda: content[: len(content) // 2],
        "empty": lambda: b"",
        "binary": lambda: bytes(range(256)),
        "foreign": lambda: b'{"benchopt": 1}',
        "a list": lambda: b"[1, 2]",
        "deep": lambda: b"[" * 100_000,
        "wrong type": lambda: json.dumps(data | {"status": 7}).encode(),
        "another run": lambda: json.dumps(make_json(seed=9)).encode(),
        "another attempt": lambda: json.dumps(data | {"attempt": 5}).encode(),
    }
    path.write_bytes(bad[how]())


@pytest.mark.parametrize(
    "how",
    ["truncated", "empty", "binary", "foreign", "a list", "deep", "wrong type", "another run", "another attempt"],
)
def test_a_damaged_file_is_set_aside_and_the_rest_used(records: Path, how: str) -> None:
    store, whole = Store(records), make(seed=1)
    path = store.append(make())
    store.append(whole)
    damage(path, how)
    content = path.read_bytes()
    with pytest.warns(StoreWarning, match=f"{path.name}.*moved to .*quarantine"):
        assert store.read() == [whole]
    assert (records / "quarantine" / path.name).read_bytes() == content, "moved, not lost"
    assert not path.exists()
    assert store.read() == [whole], "said once"


def test_every_truncation_is_noticed(records: Path) -> None:
    store = Store(records)
    path = store.append(make(values=[1.0, 0.1]))
    content = path.read_bytes()
    for length in range(0, len(content.rstrip()), 7):
        path.write_bytes(content[:length])
        found, problems = store.scan()
        assert (found, len(problems)) == ([], 1), f"cut after {length} bytes"
    assert len(list((records / "quarantine").iterdir())) == len(range(0, len(content.rstrip()), 7)), "none overwritten"


def test_a_damaged_record_does_not_settle_its_run(records: Path) -> None:
    store, one = Store(records), make()
    damage(store.append(one), "truncated")
    with pytest.warns(StoreWarning):
        assert not store.settled(one.keys)
    store.append(one)
    assert store.settled(one.keys)


def test_a_foreign_name_is_set_aside_and_other_files_are_left_alone(records: Path) -> None:
    store, one = Store(records), make()
    path = store.append(one)
    stranger = path.with_name("notes.json")
    stranger.write_text("{}")
    path.with_name("README.md").write_text("hello")
    path.with_name(".hidden.json").write_text("")
    (records / "reference").mkdir()
    (records / "reference" / "x.json").write_text("not ours to judge")
    found, problems = store.scan()
    assert found == [one]
    assert [p.path for p in problems] == [stranger]
    assert path.with_name("README.md").exists()
    assert (records / "reference" / "x.json").exists()


def test_a_newer_record_stays_where_it_is(records: Path) -> None:
    store, one = Store(records), make()
    store.append(one)
    path = store.append(make(seed=1))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.warns(StoreWarning, match=r"newer curvebench \(record schema 99.*upgrade.*left where it is"):
        assert store.read() == [one]
    assert path.exists()


def test_what_cannot_be_moved_is_only_reported(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, one = Store(records), make()
    path = store.append(make(seed=1))
    store.append(one)
    damage(path, "truncated")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.warns(StoreWarning, match="left where it is"):
        assert store.read() == [one]
    assert path.exists()


def test_an_unreadable_file_is_reported(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(records)
    path = store.append(make())

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found, problems = store.scan()
    assert found == []
    assert "cannot be read (Permission denied)" in str(problems[0])
    assert path.exists()


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    place = tmp_path / "records"
    place.write_text("I am a file")
    with pytest.raises(StoreError, match=r"cannot write .*a file stands where a folder is needed; choose another"):
        Store(place).append(make())
    with pytest.raises(StoreError, match="a file stands"):
        Store(place).probe()
    with pytest.raises(StoreError, match="cannot read the records"):
        Store(place).read()
    assert place.read_text() == "I am a file"


# ---- faults while writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "fsync", "link", "mkdir"])
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failed_write_says_so_and_leaves_nothing(
    records: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, sentence: str
) -> None:
    store, first = Store(records), make()
    store.append(first)
    before = all_files(records)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if call == "open":
            patch.setattr(files, "open", fail, raising=False)
        elif call == "mkdir":
            patch.setattr(Path, "mkdir", fail)
        else:
            patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match=sentence) as caught:
            store.append(make(seed=1))
    assert "--records DIR" in str(caught.value)
    assert all_files(records) == before, "no half file is left"
    assert store.read() == [first]


def test_a_disk_that_fills_in_the_middle_of_a_write(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[:100])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "open", lambda *a, **k: Full(real_open(*a, **k)), raising=False)
    with pytest.raises(StoreError, match="the disk is full"):
        Store(records).append(make())
    assert all_files(records) == set()


def test_a_killed_writer_leaves_nothing_that_is_read(records: Path) -> None:
    store = Store(records)
    path = store.append(make())
    path.with_name(f".{path.name}.123.abcd.tmp").write_bytes(path.read_bytes()[:50])
    found, problems = store.scan()
    assert (len(found), problems) == (1, [])


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "new").probe()
    assert all_files(tmp_path) == set()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_file_systems_without_hard_links(records: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(number, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    store = Store(records)
    names = [store.append(make()).name[-6:] for _ in range(3)]
    assert names == ["1.json", "2.json", "3.json"]
    assert len(store.read()) == 3
    assert len(all_files(records)) == 3, "no claim is left"


def test_the_claim_of_a_killed_process_costs_one_attempt(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    store, one = Store(records), make()
    shard = records / one.keys.run[:2]
    shard.mkdir()
    (shard / f".{one.name}.claim").touch()
    assert store.append(one).name.endswith("-2.json")


def test_two_processes_append_the_same_run(records: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, count = context.Event(), 60
    processes = [context.Process(target=append_many, args=(str(records), count, who, start)) for who in (1, 2, 3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found, problems = Store(records).scan()
    assert problems == []
    assert {r.reason for r in found} == {f"{who}:{k}" for who in (1, 2, 3) for k in range(count)}
    assert sorted(r.attempt for r in found) == list(range(1, 3 * count + 1))


def test_a_reader_beside_a_writer_never_sees_half_a_record(records: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    writer = context.Process(target=append_many, args=(str(records), 150, 1, start))
    writer.start()
    start.set()
    seen = 0
    while writer.is_alive():
        found, problems = Store(records).scan()
        assert problems == []
        assert len(found) >= seen, "nothing disappears"
        seen = len(found)
    writer.join()
    assert len(Store(records).read()) == 150


def test_quarantine_by_two_readers_at_once(records: Path) -> None:
    path = Store(records).append(make())
    damage(path, "empty")
    path.unlink()  # the other reader was faster
    assert Store(records).load(path, [], []) is None


def test_a_study_of_144_runs_is_checked_in_well_under_a_second(records: Path) -> None:
    store, runs = Store(records), quick_study()
    for one in runs:
        store.append(one)
    start = time.perf_counter()
    assert all(store.settled(one.keys) for one in runs)
    assert time.perf_counter() - start < 1.0  # 0.05 s on an idle machine; ten times that means a scan per run
    assert len(store.entries()) == 144


def test_warnings_come_after_everything_is_read(records: Path) -> None:
    store = Store(records)
    paths = [store.append(make(seed=seed)) for seed in range(3)]
    for path in paths[:2]:
        damage(path, "empty")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(store.read()) == 1
    assert [w.category for w in caught] == [StoreWarning, StoreWarning]


def test_names_are_parsed_strictly() -> None:
    good = "0123456789abcdef-01234567-89abcdef-1.json"
    assert folder.entry_of(Path(good)) is not None
    for bad in (
        good.upper(),
        good.replace("-1.", "-0."),
        good.replace("-1.", "-01."),
        good + "x",
        "x" + good,
        good.replace(".json", "json"),
    ):
        assert folder.entry_of(Path(bad)) is None
