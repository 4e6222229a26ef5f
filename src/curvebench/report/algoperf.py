"""AlgoPerf's released logs, read as they lie in its repository, and scored by its rule and by ours.

``<submission>/study_<i>/<workload>_<jax or pytorch>/trial_<n>/eval_measurements.csv``, submissions below a team's
folder or not. A row of the CSV is one evaluation: column ``score`` is the time that counts (seconds of training, where
it is absent ``accumulated_submission_time``), ``validation/<metric>`` what was measured.
"""

from __future__ import annotations

import csv
import math
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curvebench.errors import StoreError
from curvebench.statistics import algoperf
from curvebench.statistics.profiles import Rule, Scores, censored
from curvebench.types import BoolArray, FloatArray

TARGETS = Path(__file__).with_name("algoperf.toml")
STUDY, TRIAL = re.compile(r"study_\w+"), re.compile(r"trial_(\d+)")
WORKLOAD = re.compile(r"(.+)_(jax|pytorch)")
MEASUREMENTS = ("eval_measurements.csv", "measurements.csv")
TIMES = ("score", "accumulated_submission_time")
DEPTH = 3


class Target(NamedTuple):
    """What a workload is to reach on validation."""

    metric: str
    direction: str
    target: float


@dataclass(frozen=True)
class Version:
    """The workloads of one version of the benchmark: those that count, and held-out variants of them."""

    name: str
    base: tuple[str, ...]
    held_out: dict[str, str]
    targets: dict[str, Target]


class Trial(NamedTuple):
    """One trial: the time and number of the evaluation that reached, else how long it ran and how often."""

    time: float
    evaluation: int
    hit: bool


@dataclass(frozen=True)
class Logs:
    """All trials, padded with NaN: ``[submissions, workloads, studies, trials]``.

    Args:
        skipped: what was not used and why, sentences.
    """

    submissions: tuple[str, ...]
    workloads: tuple[str, ...]
    times: FloatArray
    hit: BoolArray
    evaluations: FloatArray
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """Scores of a set of logs.

    Args:
        times: t(s, w) as AlgoPerf has it, medians over studies, infinite where missed ``[m, W]``.
        plain: AlgoPerf's own scores ``[m]``.
        ours: the censored profile with intervals; None where there are only medians.
    """

    version: Version
    rule: Rule
    submissions: tuple[str, ...]
    workloads: tuple[str, ...]
    times: FloatArray
    plain: FloatArray
    ours: Scores | None
    skipped: tuple[str, ...]


def version(name: str | None, workloads: Sequence[str]) -> Version:
    """A version by name; without one the oldest that knows every base workload that there are logs of.

    Raises:
        StoreError: there is no such version.
    """
    raw = tomllib.loads(TARGETS.read_text())
    targets = {key: Target(**value) for key, value in raw["targets"].items()}
    known = {
        key: Version(key, tuple(value["base"]), dict(value["held_out"]), targets)
        for key, value in raw["versions"].items()
    }
    if name is not None:
        if name not in known:
            raise StoreError(f"--benchmark {name}: must be one of {', '.join(known)}")
        return known[name]
    fits = [v for v in known.values() if set(workloads) <= {*v.base, *v.held_out}]
    return (fits or list(known.values())[-1:])[0]


def score(
    place: Path,
    rule: Rule = "released",
    benchmark: str | None = None,
    draws: int = 1000,
    *,
    fixed_workloads: bool = False,
) -> Result:
    """Score a folder of logs, or a ``time_to_targets.csv`` that AlgoPerf's code has written.

    A held-out variant that nobody has logs of is passed over.

    Raises:
        StoreError: nothing there is in AlgoPerf's format.
    """
    if place.is_file():
        names, workloads, times = read_times(place)
        chosen = version(benchmark, workloads)
        plain = algoperf.scores(times, workloads, chosen.base, run(chosen, workloads))
        return Result(chosen, rule, names, workloads, times, plain, None, ())
    folders = list(submissions(place))
    if not folders:
        raise StoreError(f"{place}: no AlgoPerf logs there: want <submission>/study_0/<workload>_jax/trial_1/*.csv")
    chosen = version(benchmark, sorted({w for _, folder in folders for w in workloads_in(folder)}))
    logs = read(folders, chosen)
    times = algoperf.time_to_target(logs.times, logs.hit, logs.evaluations, rule)
    plain = algoperf.scores(times, logs.workloads, chosen.base, run(chosen, logs.workloads))
    ours = with_doubt(logs, chosen, rule, draws, fixed_workloads)
    return Result(chosen, rule, logs.submissions, logs.workloads, times, plain, ours, logs.skipped)


def run(chosen: Version, workloads: Sequence[str]) -> dict[str, str]:
    """The held-out variants that there are logs of."""
    return {variant: of for variant, of in chosen.held_out.items() if variant in workloads}


def with_doubt(logs: Logs, chosen: Version, rule: Rule, draws: int, fixed: bool) -> Scores:
    """Our profile over the base workloads; one whose held-out variant a submission misses is missed by it."""
    index = [logs.workloads.index(name) if name in logs.workloads else -1 for name in chosen.base]
    shape = (len(logs.submissions), len(index), *logs.times.shape[2:])
    times, hit, evaluations = np.full(shape, math.nan), np.zeros(shape, bool), np.zeros(shape)
    for place, column in enumerate(index):
        if column >= 0:
            times[:, place], hit[:, place] = logs.times[:, column], logs.hit[:, column]
            evaluations[:, place] = logs.evaluations[:, column]
    medians = algoperf.time_to_target(logs.times, logs.hit, logs.evaluations, rule)
    for variant, of in run(chosen, logs.workloads).items():
        median = medians[:, logs.workloads.index(variant)]
        t = np.where(np.isnan(median), math.inf, median)
        hit[~(t <= algoperf.FACTOR * t.min()) | np.isinf(t), chosen.base.index(of)] = False
    counts = evaluations if rule == "released" else None
    return censored(times, hit, counts, draws=draws, resample_tasks=not fixed)


def submissions(root: Path, depth: int = DEPTH) -> Iterator[tuple[str, Path]]:
    """Every folder that has studies, with its name: the last part of its path, the whole path where two share that."""
    found = sorted(_with_studies(root, depth))
    names = [path.name for path in found]
    for path in found:
        yield (path.name if names.count(path.name) == 1 else str(path.relative_to(root))), path


def _with_studies(folder: Path, depth: int) -> Iterator[Path]:
    children = folders_in(folder)
    if any(STUDY.fullmatch(child.name) for child in children):
        yield folder
    elif depth:
        for child in children:
            yield from _with_studies(child, depth - 1)


def folders_in(folder: Path) -> list[Path]:
    """Its folders, sorted.

    Raises:
        StoreError: it cannot be listed.
    """
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error.strerror or error}") from error


def workloads_in(submission: Path) -> set[str]:
    """Names of the workloads that a submission has logs of, without the framework."""
    found = set()
    for study in folders_in(submission):
        if STUDY.fullmatch(study.name):
            found |= {match[1] for folder in folders_in(study) if (match := WORKLOAD.fullmatch(folder.name))}
    return found


def read(folders: Sequence[tuple[str, Path]], chosen: Version) -> Logs:
    """Read every trial of the workloads of a version.

    Raises:
        StoreError: a CSV lacks the column of its workload's metric, or a workload was run in two frameworks.
    """
    cells: dict[tuple[str, str], list[list[Trial]]] = {}
    skipped: list[str] = []
    for name, folder in folders:
        for study in (s for s in folders_in(folder) if STUDY.fullmatch(s.name)):
            seen: set[str] = set()
            for place in folders_in(study):
                match = WORKLOAD.fullmatch(place.name)
                if match is None or match[1] not in {*chosen.base, *chosen.held_out}:
                    skipped.append(f"{place}: not a workload of AlgoPerf {chosen.name}")
                    continue
                if match[1] in seen:
                    raise StoreError(f"{study}: {match[1]} is there in two frameworks: score them as two submissions")
                seen.add(match[1])
                trials = list(read_trials(place, chosen.targets[match[1]], skipped))
                if trials:
                    cells.setdefault((name, match[1]), []).append(trials)
    names = tuple(name for name, _ in folders)
    workloads = tuple(w for w in (*chosen.base, *chosen.held_out) if any((n, w) in cells for n in names))
    studies = max((len(found) for found in cells.values()), default=1)
    trials_ = max((len(trials) for found in cells.values() for trials in found), default=1)
    shape = (len(names), len(workloads), studies, trials_)
    times, hit, evaluations = np.full(shape, math.nan), np.zeros(shape, bool), np.zeros(shape)
    for (name, workload), found in cells.items():
        for s, trials in enumerate(found):
            for k, trial in enumerate(trials):
                at = (names.index(name), workloads.index(workload), s, k)
                times[at], evaluations[at], hit[at] = trial.time, trial.evaluation, trial.hit
    return Logs(names, workloads, times, hit, evaluations, tuple(skipped))


def read_trials(folder: Path, target: Target, skipped: list[str]) -> Iterator[Trial]:
    """The trials in the order of their numbers; one without measurements is left out, as AlgoPerf's code does."""
    numbered = [(int(match[1]), path) for path in folders_in(folder) if (match := TRIAL.fullmatch(path.name))]
    for _, path in sorted(numbered):
        file = next((path / name for name in MEASUREMENTS if (path / name).is_file()), None)
        if file is None:
            skipped.append(f"{path}: no {MEASUREMENTS[0]}")
            continue
        yield read_trial(file, target)


def read_trial(file: Path, target: Target) -> Trial:
    """The first evaluation that reaches; NaN never does.

    Raises:
        StoreError: no column of the metric or of the time, or a value that is no number.
    """
    column = f"validation/{target.metric}"
    last = Trial(0.0, 0, False)
    try:
        with open(file, newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            clock = next((name for name in TIMES if name in columns), None)
            if clock is None or (column not in columns and file.name == MEASUREMENTS[0]):
                raise StoreError(f"{file}: has no column {column if clock else TIMES[0]!r}")
            count = 0
            for row in reader:
                value = float(row.get(column) or "nan")
                if file.name != MEASUREMENTS[0] and math.isnan(value):
                    continue  # measurements.csv has a line per log of a step as well
                time = float(row[clock])
                if value <= target.target if target.direction == "min" else value >= target.target:
                    return Trial(time, count, True)
                last = Trial(max(last.time, time), count, False)
                count += 1
    except (ValueError, UnicodeDecodeError) as error:
        raise StoreError(f"{file}: not a CSV of AlgoPerf: {error}") from error
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror or error}") from error
    return last


def read_times(file: Path) -> tuple[tuple[str, ...], tuple[str, ...], FloatArray]:
    """A ``time_to_targets.csv``: submissions, workloads and the medians ``[m, W]``.

    Raises:
        StoreError: the file is something else.
    """
    try:
        with open(file, newline="") as stream:
            header, *rows = list(csv.reader(stream))
        if header[:1] != ["submission"] or len(header) < 2 or not rows:
            raise ValueError("the first column must be 'submission', then one per workload")
        times = np.array([[float(cell or "nan") for cell in row[1:]] for row in rows])
        return tuple(row[0] for row in rows), tuple(header[1:]), times.reshape(len(rows), len(header) - 1)
    except (ValueError, OSError) as error:
        raise StoreError(f"{file}: not a time_to_targets.csv of AlgoPerf: {error}") from error
