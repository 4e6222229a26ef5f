"""Why a run would be done again: each key, each difference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from curvebench import cards, machine
from curvebench.cli.main import cli
from curvebench.procedures.why import changed_sources, reason, sources_of
from curvebench.schedule import Choice, Job, expand, jobs_of
from curvebench.store import Record, Store

MINE = "torch"


@pytest.fixture
def job() -> Job:
    choice = Choice(seeds=1, methods=("adam",), tasks=("least-squares",), frameworks=("torch",))
    return jobs_of(expand(cards.study("quick"), choice))[0]


def stored(job: Job, **changes: object) -> Record:
    """A record of this very run, as this machine would write it."""
    reference = Store(cards.root() / "results" / "records" / "reference")
    record = next(r for r in reference.read() if r.spec.task == "least-squares" and r.spec.method == "adam")
    mine = replace(record.provenance, machine=machine.fingerprint(), git=None, versions={})
    return replace(record, keys=job.keys, spec=job.spec, provenance=mine, **changes)


def test_a_stored_run_has_no_reason(job: Job) -> None:
    found = reason(job, [stored(job)])
    assert (found.differing, found.details) == ((), ())


def test_nothing_of_the_method_is_stored(job: Job) -> None:
    found = reason(job, [])
    assert found.nearest is None
    assert found.details == ("no record of adam on least-squares is stored",)


def test_a_hyperparameter_and_a_card(job: Job) -> None:
    other = dict(job.spec.hyperparameters) | {"lr": 0.123}
    spec = replace(
        job.spec,
        hyperparameters=tuple(sorted(other.items())),
        cards=tuple((name, "0" * 64 if name == "methods/adam" else value) for name, value in job.spec.cards),
    )
    record = replace(stored(job), spec=spec, keys=replace(job.keys, run=spec.id))
    found = reason(job, [record])
    assert found.differing == ("run",)
    assert set(found.details) == {
        f"hyperparameters.lr: stored 0.123, now {dict(job.spec.hyperparameters)['lr']!r}",
        "the card methods/adam has changed",
    }


def test_a_version_of_a_package(job: Job) -> None:
    record = stored(job)
    record = replace(
        record,
        keys=replace(record.keys, code="0" * 64),
        provenance=replace(record.provenance, versions={"numpy": "0.1", "no-such-package": "3"}),
    )
    found = reason(job, [record])
    assert found.differing == ("code",)
    assert found.details[0].startswith("no-such-package: stored 3, now absent")
    assert found.details[1].startswith("numpy: stored 0.1, now ")


def test_a_source_that_changed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from curvebench.store import Git

    assert "src/curvebench/run/execute.py" in sources_of(job.spec)
    assert "src/curvebench/methods/kfac_torch.py" not in sources_of(job.spec), "of other methods nothing"
    monkeypatch.setattr(
        "curvebench.procedures.why.changed_sources",
        lambda _: {"src/curvebench/run/execute.py", "src/curvebench/methods/kfac_torch.py"},
    )
    record = stored(job)
    git = Git(commit="d" * 40, dirty=False)
    record = replace(record, keys=replace(record.keys, code="0" * 64), provenance=replace(record.provenance, git=git))
    assert reason(job, [record]).details == ("src/curvebench/run/execute.py has changed since commit dddddddd",)
    dirty = replace(record, provenance=replace(record.provenance, git=Git(commit="d" * 40, dirty=True)))
    assert any("made with changes" in detail for detail in reason(job, [dirty]).details)
    monkeypatch.setattr("curvebench.procedures.why.changed_sources", lambda _: None)
    assert "does not say in which commit" in reason(job, [record]).details[0]


def test_a_commit_that_is_unknown_is_not_a_crash() -> None:
    assert changed_sources("0" * 40) is None


def test_another_machine(job: Job) -> None:
    record = stored(job)
    other = {**record.provenance.machine, "cpu": "Example CPU", "memory_class_gib": 4096}
    record = replace(
        record, keys=replace(record.keys, machine="0" * 64), provenance=replace(record.provenance, machine=other)
    )
    found = reason(job, [record])
    assert found.differing == ("machine",)
    assert found.details[0].startswith("cpu: stored 'Example CPU', here ")
    assert found.details[1].startswith("memory_class_gib: stored 4096, here ")


def test_the_nearest_record_is_the_one_with_most_keys(job: Job) -> None:
    far = replace(stored(job), keys=replace(job.keys, run="0" * 16, code="0" * 64, machine="0" * 64))
    near = replace(stored(job), keys=replace(job.keys, machine="0" * 64))
    assert reason(job, [far, near]).differing == ("machine",)


def test_a_failure_is_a_reason(job: Job) -> None:
    failed = stored(job)
    failed = Record.from_json(failed.to_json() | {"status": "crashed", "reason": "it broke", "crossing": None})
    assert reason(job, [failed], retry_failed=True).details == ("it is stored as crashed: it broke",)


def test_the_verb(tmp_path: Path) -> None:
    reference = cards.root() / "results" / "records" / "reference"
    arguments = ["why-rerun", "quick", "--task", "least-squares", "--only-method", "adam"]
    result = CliRunner().invoke(cli, [*arguments, "--records", str(reference), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["runs"] == 6
    assert all(row["nearest"] for row in report["rerun"])
    assert all(row["keys"] and row["details"] for row in report["rerun"])
    none = CliRunner().invoke(cli, [*arguments, "--records", str(tmp_path)])
    assert "6 runs, 0 stored, 6 would be done" in none.output
    assert "no record of adam on least-squares is stored" in none.output
