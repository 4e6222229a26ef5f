"""A study: skip what is stored, run the rest one process each, store each result the moment it is there."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from curvebench import machine
from curvebench.schedule import cores, devices, provenance, server
from curvebench.schedule.claims import Claims
from curvebench.schedule.failed import cards_of, failed_record, metric, title
from curvebench.schedule.isolation import Isolation, Outcome
from curvebench.schedule.progress import Progress, Silent
from curvebench.schedule.signals import Stopped, StopSignals
from curvebench.spec import RunSpec, Status
from curvebench.store import SCHEMA, Keys, Record, RecordError, Store
from curvebench.types import Json

WORKER = "curvebench.run:execute"
TIMEOUT = 600.0
QUICK_SETUP = 180.0
"""Wall seconds at ``quick`` scale for what no clock sees: data, compilation, evaluations."""
TICK = 0.5
"""Seconds after which the display is drawn again if nothing ends."""


@dataclass(frozen=True)
class Job:
    """A run and the keys under which its record is stored."""

    spec: RunSpec
    keys: Keys


@dataclass
class Summary:
    """What a study came to.

    Args:
        total: runs that the study consists of.
        stored: how many were stored before.
        statuses: how the others ended, and how often.
        seconds: wall time.
        records: the records of the runs done now.
        left: runs that the budget of wall time left undone.
        planned: wall seconds that those of ``records`` were expected to take; None where nobody expected anything.
    """

    total: int
    stored: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    records: list[Record] = field(default_factory=list)
    left: int = 0
    planned: float | None = None

    @property
    def ran(self) -> int:
        """How many runs were done now."""
        return len(self.records)


@dataclass(frozen=True)
class Options:
    """How to run a study.

    Args:
        jobs: runs at a time, each with cores of its own.
        timeout: seconds of wall time after which a run is killed; None: see :func:`wall_timeout`.
        retry_failed: run crashed, timed-out and out-of-memory runs again.
        reuse_curves: take another machine's record for a run; its times are then blank.
        again: run everything, stored or not.
        worker: ``module:function`` that takes a RunSpec and returns the record's content.
        environment: variables that must stand before the fork server starts.
        command: for the records; None: this process's own.
        budget: seconds of wall time for the whole study; no run is started that is not expected to end in time, and
            what runs when they are over is killed and not stored.
        expected: seconds by run id, for the budget.
    """

    jobs: int = 1
    timeout: float | None = None
    retry_failed: bool = False
    reuse_curves: bool = False
    again: bool = False
    worker: str = WORKER
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    budget: float | None = None
    expected: Mapping[str, float] = field(default_factory=dict)


def jobs_of(specs: Sequence[RunSpec], code_key: Callable[[RunSpec], str] | None = None) -> list[Job]:
    """Give every run its three keys. Imports no framework."""
    if code_key is None:
        from curvebench import run

        code_key = run.code_key
    machines = {device: machine.key(machine.fingerprint(devices.names(device))) for device in {s.device for s in specs}}
    return [Job(spec, Keys(spec.id, code_key(spec), machines[spec.device])) for spec in specs]


def unsettled(jobs: Sequence[Job], store: Store, options: Options) -> list[Job]:
    """Those that are to be run: not stored, or stored as a failure that is to be tried again."""
    if options.again:
        return list(jobs)
    return [job for job in jobs if not _settled(job, store, options)]


def wall_timeout(spec: RunSpec) -> float:
    """Seconds after which a run is taken to hang: ten minutes, or five more than ten times its budget on the clock.

    At ``quick`` scale four times its seconds on the clock, and three minutes for set-up, compilation and evaluations.
    """
    task, _ = cards_of(spec)
    cap = task.cap(spec.scale, spec.budget) if task is not None and spec.scale in task.scales else spec.budget.seconds
    if cap is None:
        return TIMEOUT
    return QUICK_SETUP + 4.0 * cap if spec.scale == "quick" else max(TIMEOUT, 300.0 + 10.0 * cap)


def own_modules(jobs: Sequence[Job]) -> list[str]:
    """Modules of curvebench that these runs will import; a third party's are not imported before its own run."""
    names: set[str] = set()
    for spec in {(job.spec.task, job.spec.method, job.spec.framework): job.spec for job in jobs}.values():
        names |= {f"curvebench.run.engine_{spec.framework}", f"curvebench.methods.adapter_{spec.framework}"}
        task, method = cards_of(spec)
        names |= {task.module} if task else set()
        if method is not None and spec.framework in method.frameworks:
            target = method.implementation[spec.framework].target  # type: ignore[index]  # membership was just checked
            names.add(target.partition(":")[0])
    return sorted(name for name in names if name.startswith("curvebench."))


def run_study(
    jobs: Sequence[Job],
    store: Store,
    options: Options | None = None,
    progress: Callable[[Sequence[Job]], Progress] | None = None,
) -> Summary:
    """Run what is not stored yet, in the order given, and store each result at once.

    Args:
        jobs: all runs of the study, see :func:`jobs_of`.
        store: where the records are, and go.
        options: how to run them.
        progress: given what is to run now, returns a display.

    Raises:
        Stopped: SIGINT or SIGTERM; running processes were killed, finished runs are stored.
        StoreError: a record cannot be written; everything before it is stored.
        CurvebenchError: no process can be started, a device is not there, or there are more jobs than cores.
    """
    options = options or Options()
    began = time.monotonic()
    jobs = list({job.keys.run: job for job in jobs}.values())
    todo = unsettled(jobs, store, options)
    summary = Summary(len(jobs), stored=len(jobs) - len(todo))
    if todo:
        slots = cores.partition(cores.available(), options.jobs)
        store.probe()
        devices.check(job.spec for job in todo)
        _Study(todo, slots, store, options, summary, progress, began).run()
    summary.seconds = time.monotonic() - began
    return summary


class _Study:
    def __init__(
        self,
        todo: Sequence[Job],
        slots: Sequence[tuple[int, ...]],
        store: Store,
        options: Options,
        summary: Summary,
        progress: Callable[[Sequence[Job]], Progress] | None,
        began: float,
    ) -> None:
        self.end = math.inf if options.budget is None else began + options.budget
        self.waiting = deque(todo)
        self.running: dict[str, Job] = {}
        self.idle = list(slots)
        self.store, self.options, self.summary = store, options, summary
        self.progress: Progress = progress(todo) if progress else Silent()
        self.command = provenance.command() if options.command is None else options.command
        self.claims = Claims(store.folder)
        self.lost: Counter[str] = Counter()
        self.loads: dict[str, float | None] = {}
        frameworks = {job.spec.framework for job in todo}
        preload = server.preload_for(frameworks, options.worker.partition(":")[0], *own_modules(todo))
        self.isolation = Isolation(options.worker, preload, options.environment)
        self.git = provenance.git()  # now: later a run is being timed
        self.fingerprints = {d: machine.fingerprint(devices.names(d)) for d in {job.spec.device for job in todo}}

    def run(self) -> None:
        with StopSignals() as signals, self.progress:
            try:
                while (self.waiting or self.running) and time.monotonic() < self.end:
                    self._fill(signals)
                    for outcome in self.isolation.wait(min(TICK, max(self.end - time.monotonic(), 0.0)), signals.fd):
                        self._take(outcome)
                    signals.check()
                    self.progress.tick()
                self.summary.left += len(self.waiting) + len(self.running)
            except Stopped as stopped:
                done = f"{self.summary.stored + self.summary.ran} of {self.summary.total}"
                sentence = f"stopped: {done} runs are stored; run the same command again to go on"
                raise Stopped(sentence, stopped.signal) from None
            finally:
                self.isolation.kill()
                self.claims.release_all()

    def _fill(self, signals: StopSignals) -> None:
        """Start runs while there are idle cores; what another study is running now is looked at again later."""
        for _ in range(len(self.waiting)):
            if not self.idle:
                return
            job = self.waiting.popleft()
            if time.monotonic() + self.options.expected.get(job.spec.id, 0.0) > self.end:
                self.summary.left += 1
                continue
            if not self.claims.take(job.keys.stem):
                self.waiting.append(job)
                continue
            if not self.options.again and _settled(job, self.store, self.options):
                self.claims.release(job.keys.stem)
                self.summary.stored += 1  # another study on this store was faster
                continue
            self.loads[job.spec.id] = machine.load()
            timeout = self.options.timeout or wall_timeout(job.spec)
            with signals.raising():  # the first start waits until the server has imported the frameworks
                self.isolation.start(job.spec, self.idle[0], timeout)
            self.idle.pop(0)
            self.running[job.spec.id] = job
            self.progress.started(job.spec)

    def _take(self, outcome: Outcome) -> None:
        """Store one result."""
        job = self.running.pop(outcome.spec.id)
        self.idle.append(outcome.cores)
        try:
            self._store(job, outcome)
        finally:
            self.claims.release(job.keys.stem)

    def _store(self, job: Job, outcome: Outcome) -> None:
        key = job.spec.id
        self.lost[key] += outcome.lost
        if outcome.lost and self.lost[key] == 1:
            self.waiting.appendleft(job)
            return
        record = self._record(job, outcome)
        path = self.store.append(record)
        record = replace(record, attempt=int(path.stem.rpartition("-")[2]))  # the store counts attempts
        self.summary.records.append(record)
        self.summary.statuses[record.status.value] += 1
        self.progress.ended(outcome.spec, record.to_json(), outcome.seconds)

    def _record(self, job: Job, outcome: Outcome) -> Record:
        if outcome.record is not None:
            try:
                return Record.from_json(self._complete(job, outcome, outcome.record))
            except RecordError as error:
                sentence = f"the worker's result is not a record: {error}"
                return Record.from_json(self._complete(job, outcome, failed_record(outcome, Status.CRASHED, sentence)))
        status = outcome.status or Status.CRASHED
        return Record.from_json(self._complete(job, outcome, failed_record(outcome, status, outcome.reason)))

    def _complete(self, job: Job, outcome: Outcome, content: Json) -> Json:
        """Add the keys and the provenance that only the parent knows."""
        given = content.get("provenance")
        known = {
            "command": self.command,
            "concurrent": self.options.jobs,
            "git": self.git,
            "load": self.loads.get(job.spec.id),
            "machine": self.fingerprints[job.spec.device],
        }
        merged = {**given, **known} if isinstance(given, dict) else known
        whole = {**content, "schema": SCHEMA, "keys": asdict(job.keys), "attempt": 1, "provenance": merged}
        if isinstance(whole.get("seconds"), dict):
            whole["seconds"] = {**whole["seconds"], "total": outcome.seconds}
        # A run that was refused before it read its cards does not know what they say.
        if _unknown(content.get("title"), "method_family"):
            whole["title"] = title(job.spec)
        if _unknown(content.get("metric"), "name"):
            whole["metric"] = metric(job.spec)
        return whole


def _unknown(part: object, key: str) -> bool:
    return not isinstance(part, dict) or part.get(key) is None


def _settled(job: Job, store: Store, options: Options) -> bool:
    return store.settled(job.keys, retry_failed=options.retry_failed, reuse_curves=options.reuse_curves)
