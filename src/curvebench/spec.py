"""The vocabulary of a run: what a task can be asked, how a run can end, what it consists of, where seeds come from.

Everything here is frozen and depends on nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, TypeAlias

Scalar: TypeAlias = float | int | bool | str


class Query(str, Enum):
    """What a method may ask of a task at a point. The value is the word used in cards and records."""

    LOSS = "loss"
    GRADIENT = "gradient"
    JVP = "jvp"
    HVP = "hvp"
    GGNVP = "ggnvp"
    PER_SAMPLE_GRADIENT = "per_sample_gradient"
    LAYER_STATISTICS = "layer_statistics"
    LOSS_FUNCTION = "loss_function"

    def __str__(self) -> str:
        return self.value


class Status(str, Enum):
    """How a run ended. Every record has exactly one, with a reason."""

    REACHED = "reached"
    BUDGET = "budget"
    DIVERGED = "diverged"
    UNSUPPORTED = "unsupported"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    def __str__(self) -> str:
        return self.value


FRAMEWORKS = ("torch", "jax")
SCALES = ("quick", "standard", "paper")
DTYPES = ("float32", "float64")
RETRIABLE = frozenset({Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY})
"""Statuses that ``--retry-failed`` tries again: they say more about the machine than about the method."""


@dataclass(frozen=True)
class Budget:
    """The first limit met ends the run.

    Args:
        steps: optimiser steps, at least 1.
        seconds: on-clock seconds (evaluation, compilation and storage are off the clock), or None.
        gradient_equivalents: flops of the steps over those of one gradient, or None.
    """

    steps: int
    seconds: float | None = None
    gradient_equivalents: float | None = None


@dataclass(frozen=True)
class RunSpec:
    """One run, resolved: every hyperparameter explicit, nothing left to a library's default.

    Args:
        task: name of a task card.
        scale: ``quick``, ``standard`` or ``paper``.
        method: name of a method card, a path to one, or a dotted path ``pkg.module:Class`` / ``file.py:Class``.
        hyperparameters: sorted ``(name, value)`` pairs after defaults.
        needs: the queries that the method declares, sorted words.
        framework: ``torch`` or ``jax``.
        device: ``cpu``, ``cuda`` or ``cuda:i``.
        dtype: ``float32`` or ``float64``; parameters, data and arithmetic.
        seed_block: integer; fixes initial parameters, data order and, with the method's name, its noise.
        budget: when the run ends at the latest.
        draws: ``native`` (the framework's own generator) or ``reference`` (NumPy Philox, same bits in both frameworks).
        source: where the hyperparameters come from: ``card``, ``tuned`` or ``given``.
        schedule: of the learning rate over the steps, as on a command line: ``constant``, ``linear:warmup=0.1``, ...
        cards: digests of the cards that define the run, sorted ``(kind/name, sha256)`` pairs.
    """

    task: str
    scale: str
    method: str
    hyperparameters: tuple[tuple[str, Scalar], ...]
    needs: tuple[str, ...]
    framework: str
    device: str
    dtype: str
    seed_block: int
    budget: Budget
    draws: str = "native"
    source: str = "card"
    schedule: str = "constant"
    cards: tuple[tuple[str, str], ...] = field(default=())

    @property
    def id(self) -> str:
        """16 hex digits: the hash of the resolved spec and of the content of its cards. Never a source of seeds."""
        content = self.to_json()
        if self.schedule == "constant":
            del content["schedule"]  # as in records from before there were schedules
        del content["source"]  # the same numbers are the same run, whoever chose them
        return digest(content)[:16]

    @property
    def label(self) -> str:
        """How a person refers to this run."""
        return f"{self.task} / {self.method} / {self.framework} / seed {self.seed_block}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; :meth:`from_json` inverts it."""
        out = asdict(self)
        out["hyperparameters"] = dict(self.hyperparameters)
        out["cards"] = dict(self.cards)
        out["needs"] = list(self.needs)
        if self.budget.gradient_equivalents is None:  # a run without this limit keeps the id that it always had
            del out["budget"]["gradient_equivalents"]
        return out

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunSpec:
        """Rebuild a spec from :meth:`to_json`.

        Raises:
            TypeError: a key is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known:
            raise TypeError(f"unknown keys in a run spec: {sorted(unknown)}")
        return cls(
            **{
                **data,
                "hyperparameters": tuple(sorted(data["hyperparameters"].items())),
                "cards": tuple(sorted(data.get("cards", {}).items())),
                "needs": tuple(data["needs"]),
                "budget": Budget(**data["budget"]),
            }
        )


def digest(content: object) -> str:
    """sha256 of the canonical JSON of ``content``: sorted keys, no spaces, shortest float repr."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def seed(*axes: str | int) -> int:
    """A 63-bit seed that is a pure function of named axes, e.g. ``seed("data", task, block)``.

    Python's ``hash`` is salted per process and is never used. Data order and initial parameters depend on
    (task, seed block) only, so that all methods and both frameworks of a block see the same batches.
    """
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, axes)).encode()).digest()[:8], "big") >> 1
