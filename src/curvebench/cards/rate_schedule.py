"""Learning-rate schedules: the factor of every step, a property of a task's scale that a study may override."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from curvebench.cards.base import STRICT
from curvebench.errors import CardError, did_you_mean

Kind = Literal["constant", "linear", "cosine", "multistep"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class RateSchedule:
    """``lr_t = lr * m_t`` for steps t = 0..T-1 of a budget of T steps; W = round(warmup T).

    ``m_t = (t + 1) / W`` for t < W; afterwards, with ``s = (t - W) / (T - W)``:
    constant 1; linear ``final + (1 - final)(1 - s)^power``; cosine ``final + (1 - final)(1 + cos(pi s)) / 2``;
    multistep ``factor^k`` with k the number of ``at`` whose step round(at T) is not after t.

    Differs from transformers: the first step of a warm-up has the rate lr / W, not 0.

    Args:
        kind: constant, linear, cosine or multistep.
        warmup: share of the steps over which the factor rises to 1.
        at: multistep's milestones, shares of the steps, rising.
        factor: what a milestone multiplies by.
        final: where linear and cosine end.
        power: of linear's fall; 0.5 is the polynomial decay of BERT-Large with LAMB.

    Raises:
        ValueError: a value outside its range, or one that the kind does not have.
    """

    __pydantic_config__ = STRICT

    kind: Annotated[Kind, Field(description="constant, linear, cosine or multistep")] = "constant"
    warmup: Annotated[float, Field(description="share of the steps over which the factor rises linearly to 1")] = 0.0
    at: Annotated[tuple[float, ...], Field(description="multistep: when it falls, shares of the steps, rising")] = ()
    factor: Annotated[float, Field(description="multistep: what each fall multiplies by")] = 0.1
    final: Annotated[float, Field(description="linear, cosine: the factor at the end")] = 0.0
    power: Annotated[float, Field(description="linear: exponent of the fall")] = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r}: must be one of {', '.join(KINDS)}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup = {self.warmup:g}: must lie in [0, 1), a share of the steps")
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor = {self.factor:g}: must lie in (0, 1]")
        if not 0 <= self.final <= 1:
            raise ValueError(f"final = {self.final:g}: must lie in [0, 1]")
        if not 0 < self.power < math.inf:
            raise ValueError(f"power = {self.power:g}: must lie in (0, inf)")
        rising = all(a < b for a, b in zip((0.0, *self.at), (*self.at, 1.0), strict=True))
        if self.kind == "multistep" and not (self.at and rising):
            raise ValueError(f"at = {list(self.at)}: must be rising shares of the steps in (0, 1), at least one")
        for name, kinds in (
            ("at", ("multistep",)),
            ("factor", ("multistep",)),
            ("final", ("linear", "cosine")),
            ("power", ("linear",)),
        ):
            if self.kind not in kinds and name in self.stated():
                raise ValueError(f"{name}: {self.kind} has none: it belongs to {' and '.join(kinds)}")

    @property
    def constant(self) -> bool:
        """Whether the factor is always 1."""
        return self.kind == "constant" and not self.warmup

    def multipliers(self, steps: int) -> tuple[float, ...]:
        """``m_0 .. m_{T-1}``, T = ``steps``."""
        return tuple(self._factors(steps))

    def _factors(self, steps: int) -> Iterator[float]:
        warm = round(self.warmup * steps)
        falls = [round(share * steps) for share in self.at]
        for t in range(steps):
            s = (t - warm) / (steps - warm) if t >= warm else 0.0
            if t < warm:
                yield (t + 1) / warm
            elif self.kind == "linear":
                yield self.final + (1 - self.final) * (1 - s) ** self.power
            elif self.kind == "cosine":
                yield self.final + (1 - self.final) * (1 + math.cos(math.pi * s)) / 2
            else:  # of a constant one there are no falls
                yield self.factor ** sum(fall <= t for fall in falls)

    def stated(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def __str__(self) -> str:
        """As on a command line; :func:`parse` inverts it."""
        rest = {name: value for name, value in self.stated().items() if name != "kind"}
        text = ",".join(
            f"{name}={'+'.join(map(repr, v)) if isinstance(v, tuple) else repr(v)}" for name, v in rest.items()
        )
        return f"{self.kind}:{text}" if text else self.kind

    def describe(self, steps: int) -> str:
        """A sentence's part: ``linear to 0 at step 510, 51 steps of warm-up``."""
        if self.kind == "multistep":
            falls = " and ".join(f"{round(share * steps):,}" for share in self.at)
            text = f"times {self.factor:g} at steps {falls} of {steps:,}"
        else:
            text = "constant" if self.kind == "constant" else f"{self.kind} to {self.final:g} at step {steps:,}"
        warm = round(self.warmup * steps)
        return f"{text}, {warm:,} steps of warm-up" if warm else text


def parse(text: str) -> RateSchedule:
    """A schedule from a command line: ``cosine``, ``linear:warmup=0.1``, ``multistep:at=0.5+0.75,factor=0.1``.

    Raises:
        CardError: it is none; the message says why.
    """
    kind, _, rest = text.partition(":")
    given: dict[str, Any] = {"kind": kind}
    known = [f.name for f in fields(RateSchedule) if f.name != "kind"]
    try:
        for part in filter(None, rest.split(",")):
            name, _, value = part.partition("=")
            if name not in known:
                raise ValueError(f"{name}: unknown{did_you_mean(name, known)}")
            given[name] = tuple(float(v) for v in value.split("+")) if name == "at" else float(value)
        return RateSchedule(**given)
    except ValueError as error:
        raise CardError(f"schedule {text!r}: {error}") from error
