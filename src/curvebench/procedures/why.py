"""Why a run is not skipped: which of its three keys no stored record matches, and in what they differ.

A record stores hashes, so what differs is told from the rest of it: the spec and the digests of its cards, the
versions of packages and the sources that changed since its commit, the fields of the machine's fingerprint.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import curvebench
from curvebench import machine
from curvebench.run import code as code_keys
from curvebench.schedule import Job, devices
from curvebench.spec import RunSpec
from curvebench.store import Record
from curvebench.types import Json

KEYS = ("run", "code", "machine")


@dataclass(frozen=True)
class Reason:
    """Why one run is to be done.

    Args:
        job: the run.
        nearest: the stored record that comes closest; None where there is none of this task and method.
        differing: names of the keys that differ from the nearest.
        details: in what, sentences.
    """

    job: Job
    nearest: Record | None
    differing: tuple[str, ...]
    details: tuple[str, ...]


def why(jobs: Sequence[Job], records: Iterable[Record], retry_failed: bool = False) -> list[Reason]:
    """One reason per run; compared with the record that shares most keys, then most of the spec, then the newest."""
    by_place: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_place.setdefault((record.spec.task, record.spec.method), []).append(record)
    return [reason(job, by_place.get((job.spec.task, job.spec.method), ()), retry_failed) for job in jobs]


def reason(job: Job, candidates: Sequence[Record], retry_failed: bool = False) -> Reason:
    """Why this run is to be done."""
    if not candidates:
        return Reason(job, None, KEYS, (f"no record of {job.spec.method} on {job.spec.task} is stored",))
    near = max(candidates, key=lambda r: (nearness(job, r), r.provenance.started, r.attempt))
    differing = tuple(k for k in KEYS if getattr(job.keys, k) != getattr(near.keys, k))
    details: list[str] = []
    if "run" in differing:
        details += spec_differences(near.spec, job.spec)
    if "code" in differing:
        details += code_differences(near, job.spec)
    if "machine" in differing:
        details += machine_differences(near.provenance.machine, machine.fingerprint(devices.names(job.spec.device)))
    if not differing and near.retriable:
        details.append(f"it is stored as {near.status}: {near.reason}" + ("" if retry_failed else " (--retry-failed)"))
    return Reason(job, near, differing, tuple(details))


def nearness(job: Job, record: Record) -> tuple[int, int, int]:
    """How near a record is: keys that agree, the seed and framework, fields of the spec that agree."""
    keys = sum(getattr(job.keys, k) == getattr(record.keys, k) for k in KEYS)
    ours, theirs = job.spec.to_json(), record.spec.to_json()
    same = sum(ours[name] == theirs[name] for name in ours)
    place = (job.spec.seed_block == record.spec.seed_block) + (job.spec.framework == record.spec.framework)
    return keys + 4 * (job.keys.run == record.keys.run), place, same


def spec_differences(old: RunSpec, new: RunSpec) -> Iterator[str]:
    """What differs between two specs, one sentence each."""
    before, after = old.to_json(), new.to_json()
    for name in after:
        if name == "source" or before[name] == after[name]:
            continue
        if name == "cards":
            for card in sorted({*before[name], *after[name]}):
                if before[name].get(card) != after[name].get(card):
                    yield f"the card {card} has changed"
        elif isinstance(after[name], dict):
            for key in sorted({*before[name], *after[name]}):
                if before[name].get(key) != after[name].get(key):
                    yield f"{name}.{key}: stored {before[name].get(key)!r}, now {after[name].get(key)!r}"
        else:
            yield f"{name}: stored {before[name]!r}, now {after[name]!r}"


def code_differences(record: Record, spec: RunSpec) -> Iterator[str]:
    """Versions that differ, and sources of the run that changed since the record's commit."""
    found = False
    for package, stored in sorted(record.provenance.versions.items()):
        if package == "curvebench":
            continue
        try:
            now = version(package)
        except PackageNotFoundError:
            now = "absent"
        if now != stored:
            found = True
            yield f"{package}: stored {stored}, now {now}"
    git = record.provenance.git
    changed = None if git is None else changed_sources(git.commit)
    if changed is None:
        if not found:
            yield "a source that the run imports has changed; its record does not say in which commit it was"
        return
    mine = sorted(changed & sources_of(spec))
    for path in mine:
        yield f"{path} has changed since commit {git.commit[:8] if git else ''}"
    if git is not None and git.dirty:
        yield f"the record was made with changes that commit {git.commit[:8]} does not have"
    elif not mine and not found:
        yield "no tracked source of the run has changed since its commit: an untracked one, or a package, has"


def changed_sources(commit: str) -> set[str] | None:
    """Files below ``src`` that differ between a commit and the working tree; None if git cannot say."""
    root = Path(curvebench.__file__).parents[2]
    command = ["git", "-C", str(root), "diff", "--name-only", commit, "--", "src"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split("\n")) - {""} if done.returncode == 0 else None


def sources_of(spec: RunSpec) -> set[str]:
    """Paths below the checkout of every source in the code key of a run."""
    root = Path(curvebench.__file__).parents[2]
    return {str(path.relative_to(root)) for path in code_keys.sources(spec) if path.is_relative_to(root)}


def machine_differences(stored: Json, now: Json) -> Iterator[str]:
    """Fields of the fingerprint that enter the key and differ."""
    for name in machine.KEYED:
        if stored.get(name) != now.get(name):
            yield f"{name}: stored {stored.get(name)!r}, here {now.get(name)!r}"
