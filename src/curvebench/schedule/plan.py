"""From a study's card to the list of runs, in the order in which they are run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from curvebench import cards
from curvebench.cards import MethodCard, RateSchedule, StudyCard, TaskCard
from curvebench.errors import CardError, CurvebenchError, UnknownNameError
from curvebench.schedule.references import method_card
from curvebench.spec import Budget, Query, RunSpec, Scalar, seed
from curvebench.store import tuned

SMOKE = "CURVEBENCH_SMOKE"
SMOKE_SECONDS = 2.0
TunedLookup: TypeAlias = Callable[[MethodCard, str, str], Mapping[str, Scalar] | None]
"""(method card, task, framework) -> tuned hyperparameters, or None if the pair was never tuned."""


@dataclass(frozen=True)
class Choice:
    """What the command line adds to a study or leaves out of it; an empty tuple leaves nothing out.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:i``.
        seeds: number of seed blocks, None: the study's.
        added: references of more methods.
        needs: queries that those of ``added`` without a card ask for.
        methods: of the study's methods only these.
        tasks: only these of the study's tasks.
        frameworks: only these.
    """

    device: str = "cpu"
    seeds: int | None = None
    added: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = ()


def expand(study: StudyCard, choice: Choice | None = None, lookup: TunedLookup | None = None) -> list[RunSpec]:
    """The runs of a study: seed block by seed block, task by task, methods and frameworks shuffled inside.

    What is compared with each other runs close together in time and in no fixed order, so that drift of the machine
    favours nobody. The order is a function of the study's name alone.

    Args:
        study: its card.
        choice: what is added to it and left out of it.
        lookup: where tuned hyperparameters come from if the study asks for them.

    Raises:
        CurvebenchError: a card, name, reference, hyperparameter or number of seeds that does not hold.
    """
    choice = choice or Choice()
    lookup = lookup or stored_tuned
    seeds = _seeds(study, choice)
    wanted = (*choice.methods, *choice.added) if choice.methods else ()  # a filter is not for what was just added
    references = _only("method", wanted, [*study.methods, *choice.added])
    task_names = _only("task", choice.tasks, study.tasks)
    frameworks = _only("framework", choice.frameworks, study.frameworks)
    methods = {name: method_card(name, *_way(name, choice, frameworks)) for name in references}
    _check_some_run(methods, choice, frameworks)
    specs: dict[tuple[str, str, str], RunSpec] = {}
    for task_name in task_names:
        task = cards.task(task_name)
        scale = task.at(study.scale)
        budget = study.budget_of(scale.budget)
        for reference, method in methods.items():
            for framework in (name for name in frameworks if name in method.frameworks):
                given = lookup(method, task_name, framework) if study.hyperparameters == "tuned" else None
                source = "tuned" if given else "card"
                specs[task_name, reference, framework] = specify(
                    task, reference, method, framework, study.scale, budget, given or {}, source, choice.device,
                    schedule=study.schedule,
                )  # fmt: skip
    blocks = [(block, _order(study.name, block, list(specs))) for block in range(seeds)]
    return [replace(specs[key], seed_block=block) for block, keys in blocks for key in keys]


def specify(
    task: TaskCard,
    reference: str,
    method: MethodCard,
    framework: str,
    scale: str,
    budget: Budget,
    given: Mapping[str, Scalar],
    source: str,
    device: str = "cpu",
    seed_block: int = 0,
    schedule: RateSchedule | None = None,
) -> RunSpec:
    """One resolved run; ``given`` are the hyperparameters that differ from the card's defaults.

    The learning rate follows ``schedule``, or that of the task's scale.

    Raises:
        HyperparameterError: an unknown hyperparameter or a value outside its range.
    """
    digests = {f"methods/{method.name}": method.digest, f"tasks/{task.name}": task.digest}
    if task.dataset is not None:
        digests[f"datasets/{task.dataset}"] = cards.dataset(task.dataset).digest
    return RunSpec(
        task=task.name,
        scale=scale,
        method=reference,
        hyperparameters=method.resolve(given),
        needs=tuple(sorted(str(query) for query in method.needs)),
        framework=framework,
        device=device,
        dtype=task.dtype,
        seed_block=seed_block,
        budget=smoked(budget),
        source=source,
        schedule=str(schedule or task.at(scale).schedule),
        cards=tuple(sorted(digests.items())),
    )


def smoking() -> bool:
    """Whether ``CURVEBENCH_SMOKE=1`` asks for a quick try: one seed, two seconds a run at most."""
    return os.environ.get(SMOKE, "") not in ("", "0")


def smoked(budget: Budget) -> Budget:
    """The budget, cut to two seconds if ``CURVEBENCH_SMOKE`` is set."""
    if not smoking():
        return budget
    return replace(budget, seconds=min(budget.seconds or SMOKE_SECONDS, SMOKE_SECONDS))


def stored_tuned(method: MethodCard, task: str, framework: str) -> Mapping[str, Scalar] | None:
    """Tuned hyperparameters that are committed beside the cards.

    Raises:
        StoreError: the file is there but does not hold them.
    """
    found = tuned(cards.root() / "results" / "tuned", task, method.name, framework, method.twin)
    return None if found is None else found["hyperparameters"]


def check_needs(needs: Iterable[str]) -> tuple[str, ...]:
    """Validate words given with ``--needs``.

    Raises:
        UnknownNameError: not a query, with the nearest ones.
    """
    words = tuple(needs)
    known = [str(query) for query in Query]
    for word in words:
        if word not in known:
            raise UnknownNameError("query", word, known)
    return words


def _seeds(study: StudyCard, choice: Choice) -> int:
    seeds = study.seeds if choice.seeds is None else choice.seeds
    if seeds < 1:
        raise CurvebenchError(f"--seeds {seeds}: must be at least 1")
    return min(seeds, 1) if smoking() else seeds


def _only(kind: str, wanted: Sequence[str], there: Sequence[str]) -> list[str]:
    """Those of ``there`` that are wanted, each once, in the order of ``there``."""
    for name in wanted:
        if name not in there:
            raise UnknownNameError(f"{kind} of this study:", name, there)
    return [name for name in dict.fromkeys(there) if not wanted or name in wanted]


def _way(reference: str, choice: Choice, frameworks: Sequence[str]) -> tuple[tuple[str, ...] | None, str | None]:
    """The needs and the framework that resolve a reference: a study's own methods have cards that say both."""
    if reference not in choice.added:
        return None, None
    return tuple(sorted(check_needs(choice.needs))) or None, frameworks[0] if len(frameworks) == 1 else None


def _check_some_run(methods: Mapping[str, MethodCard], choice: Choice, frameworks: Sequence[str]) -> None:
    """Refuse a method that was asked for by name and that no framework of the study can run."""
    for reference, method in methods.items():
        asked = reference in choice.added or reference in choice.methods or len(methods) == 1
        if asked and not set(method.frameworks) & set(frameworks):
            raise CardError(
                f"{reference}: implemented in {' and '.join(method.frameworks)}, "
                f"and only {' and '.join(frameworks)} is asked for"
            )


def _order(name: str, block: int, keys: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Tasks in the study's order; what is compared on a task in a random one that depends on names alone."""
    out = []
    for task in dict.fromkeys(key[0] for key in keys):
        pairs = [key for key in keys if key[0] == task]
        random.Random(seed("order", name, block, task)).shuffle(pairs)
        out += pairs
    return out
