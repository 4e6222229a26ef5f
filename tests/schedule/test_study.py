"""A study in this process: what is skipped, what is stored, what a failure costs."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from dummies import record, spec

from curvebench.errors import CurvebenchError, StoreError
from curvebench.schedule import Job, Options, cores, jobs_of, run_study, unsettled
from curvebench.schedule.progress import Silent
from curvebench.spec import Budget, RunSpec
from curvebench.store import SCHEMA, Record, Store


def jobs(*methods: str, seeds: int = 1) -> list[Job]:
    return jobs_of([spec(method, block) for block in range(seeds) for method in methods], lambda _: "c" * 64)


def options(**more: object) -> Options:
    return Options(**{"worker": "dummies:work", "timeout": 30.0, **more})  # type: ignore[arg-type]


def statuses(store: Store) -> dict[str, str]:
    return {r.spec.method: r.status.value for r in store.read()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "records")


def test_everything_is_stored_with_keys_and_provenance(store: Store) -> None:
    summary = run_study(jobs("quick", seeds=3), store, options(command="curvebench bench dummies"))
    assert (summary.total, summary.stored, summary.ran) == (3, 0, 3)
    assert summary.statuses == {"reached": 3}
    stored = store.read()
    assert sorted(r.spec.seed_block for r in stored) == [0, 1, 2]
    one = stored[0]
    assert one.keys.run == one.spec.id
    assert one.keys.code == "c" * 64
    assert one.provenance.command == "curvebench bench dummies"
    assert one.provenance.concurrent == 1
    assert one.provenance.machine["cores"]["available"] >= 1
    assert one.provenance.load is not None


def test_what_is_stored_is_not_run_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = tmp_path / "marks"
    monkeypatch.setenv("DUMMY_MARKS", str(marks))
    run_study(jobs("marked", seeds=2), store, options())
    again = run_study(jobs("marked", seeds=3), store, options())
    assert (again.stored, again.ran) == (2, 1)
    assert len(marks.read_text().splitlines()) == 3


@pytest.mark.parametrize("key", ["code", "machine"])
def test_another_code_or_machine_is_another_run(store: Store, key: str) -> None:
    first = jobs("quick")
    run_study(first, store, options())
    other = [replace(job, keys=replace(job.keys, **{key: "d" * 64})) for job in first]
    assert unsettled(other, store, options()) == other
    reused = unsettled(other, store, options(reuse_curves=True))
    assert reused == ([] if key == "machine" else other)


def test_a_failure_costs_its_own_run_only(store: Store) -> None:
    summary = run_study(
        jobs("raise", "quick-1", "kill", "exit", "hang", "memory", "quick-2"), store, options(timeout=1.0)
    )
    assert statuses(store) == {
        "raise": "crashed",
        "quick-1": "reached",
        "kill": "crashed",
        "exit": "crashed",
        "hang": "timeout",
        "memory": "out_of_memory",
        "quick-2": "reached",
    }
    assert summary.statuses == {"crashed": 3, "reached": 2, "timeout": 1, "out_of_memory": 1}


def test_the_record_of_a_failure_is_whole(store: Store) -> None:
    run_study(jobs("raise"), store, options())
    failed = store.read()[0]
    assert failed.reason.startswith("ValueError: the dummy is broken")
    assert failed.curve.step == ()
    assert failed.crossing is None
    assert failed.seconds.total is not None
    assert failed.provenance.threads == len(cores.available())
    assert failed.provenance.notes[0].startswith("printed: Traceback")
    assert failed.provenance.notes[-1] == "printed: ValueError: the dummy is broken"


def test_failures_are_tried_again_only_if_asked(store: Store) -> None:
    both = jobs("exit", "quick")
    run_study(both, store, options())
    assert unsettled(both, store, options()) == []
    assert unsettled(both, store, options(retry_failed=True)) == both[:1]
    run_study(both, store, options(retry_failed=True))
    assert sorted((r.spec.method, r.attempt) for r in store.read()) == [("exit", 1), ("exit", 2), ("quick", 1)]


def test_a_result_that_is_no_record_is_a_crash(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_VARIABLE", "x")
    run_study(jobs("wrong"), store, options())
    failed = store.read()[0]
    assert failed.status.value == "crashed"
    assert failed.reason.startswith("the worker's result is not a record: ")
    assert "status" in failed.reason


def test_a_run_lost_with_the_fork_server_is_run_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUMMY_MARKS", str(tmp_path / "mark"))
    run_study(jobs("server", "quick"), store, options())
    assert statuses(store) == {"server": "reached", "quick": "reached"}
    assert [r.attempt for r in store.read()] == [1, 1]


def test_the_same_run_twice_is_one_run(store: Store) -> None:
    assert run_study(jobs("quick", "quick"), store, options()).total == 1
    assert len(store.read()) == 1


def test_jobs_have_cores_of_their_own(store: Store) -> None:
    if len(cores.available()) < 2:
        pytest.skip("this machine has one core")
    run_study(jobs("cores", seeds=6), store, options(jobs=2))
    notes = [json.loads(r.provenance.notes[0]) for r in store.read()]
    assert len(notes) == 6
    assert {r.provenance.concurrent for r in store.read()} == {2}
    half = len(cores.available()) // 2
    together = 0
    for i, one in enumerate(notes):
        assert len(one["cores"]) == half
        assert one["omp"] == str(half)
        for other in notes[:i]:
            if one["began"] < other["ended"] and other["began"] < one["ended"]:
                together += 1
                assert not set(one["cores"]) & set(other["cores"])
    assert together > 0, "nothing ran at the same time"


def test_more_jobs_than_cores_are_refused_before_anything_runs(store: Store) -> None:
    with pytest.raises(CurvebenchError, match="--jobs 1000: must be at most"):
        run_study(jobs("quick"), store, options(jobs=1000))
    assert not store.folder.exists()


def test_a_device_that_is_not_here_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curvebench.schedule.devices.installed", lambda: ())
    with pytest.raises(CurvebenchError, match=r"--device cuda: no NVIDIA GPU .* use --device cpu"):
        jobs_of([replace(spec(), device="cuda")], lambda _: "c" * 64)
    monkeypatch.setattr("curvebench.schedule.devices.installed", lambda: ("NVIDIA H100",))
    with pytest.raises(CurvebenchError, match=r"--device cuda:1: there is only cuda:0 \(NVIDIA H100\)"):
        jobs_of([replace(spec(), device="cuda:1")], lambda _: "c" * 64)
    with pytest.raises(CurvebenchError, match="--device tpu: must be cpu, cuda or cuda:<number>"):
        jobs_of([replace(spec(), device="tpu")], lambda _: "c" * 64)
    here = jobs_of([replace(spec(), device="cuda")], lambda _: "c" * 64)
    assert here[0].keys.machine != jobs("quick")[0].keys.machine, "a GPU belongs to the machine's key"


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_framework_that_cannot_use_the_gpu_is_a_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    pytest.importorskip(framework)
    monkeypatch.setattr("curvebench.schedule.devices.installed", lambda: ("a GPU that no framework sees",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    wanted = jobs_of([replace(spec(framework=framework), device="cuda")], lambda _: "c" * 64)
    with pytest.raises(CurvebenchError, match=f"--device cuda: {framework} cannot use it: "):
        run_study(wanted, store, options())


def test_a_read_only_store_is_found_before_the_first_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.folder.parent.joinpath("records").write_text("a file where a folder is needed")
    with pytest.raises(StoreError):
        run_study(jobs("quick"), store, options())


def test_a_disk_that_gets_full_ends_the_study_and_keeps_what_is_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Store.append

    def full_after_two(self: Store, content: Record) -> Path:
        if len(self.entries()) >= 2:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", _no_space)
                return append(self, content)
        return append(self, content)

    monkeypatch.setattr(Store, "append", full_after_two)
    with pytest.raises(StoreError, match="the disk is full"):
        run_study(jobs("quick", seeds=5), store, options())
    monkeypatch.undo()
    assert len(store.read()) == 2
    assert run_study(jobs("quick", seeds=5), store, options()).ran == 3


def _no_space(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_display_is_told_everything(store: Store) -> None:
    told: list[str] = []

    class Ear(Silent):
        def started(self, spec: RunSpec) -> None:
            told.append(f"started {spec.seed_block}")

        def ended(self, spec: RunSpec, record: object, seconds: float) -> None:
            told.append(f"ended {spec.seed_block}")

    def display(todo: Sequence[Job]) -> Ear:
        told.append(f"{len(todo)} to do")
        return Ear()

    run_study(jobs("quick", seeds=1), store, options())
    run_study(jobs("quick", seeds=3), store, options(), display)
    assert told == ["2 to do", "started 1", "ended 1", "started 2", "ended 2"]


def test_the_wall_timeout_follows_the_budget() -> None:
    from curvebench.schedule.study import wall_timeout

    given = replace(spec(), task="digits-cnn", scale="standard")
    assert wall_timeout(replace(given, budget=Budget(10))) == 600.0
    assert wall_timeout(replace(given, budget=Budget(10, 20.0))) == 600.0
    assert wall_timeout(replace(given, budget=Budget(10, 3600.0))) == 36300.0
    quick = replace(given, scale="quick")
    assert wall_timeout(replace(quick, budget=Budget(10, 20.0))) == 260.0
    assert wall_timeout(replace(quick, budget=Budget(10))) == 600.0, "no clock ends it"
    assert wall_timeout(replace(quick, task="least-squares", budget=Budget(10))) == 420.0, "a minute on the clock"


def test_the_dummy_record_is_a_record() -> None:
    """What these tests rest on."""
    keys = {"run": "0" * 16, "code": "0" * 64, "machine": "0" * 64}
    content = record(spec(), command="", git=None, concurrent=1)
    assert Record.from_json({**content, "schema": SCHEMA, "keys": keys, "attempt": 1}).status.value == "reached"
