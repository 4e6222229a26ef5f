"""What a person sees on stderr while a study runs: a live bar on a terminal, one line per run elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from curvebench.spec import RunSpec

if TYPE_CHECKING:
    from rich.live import Live

REFRESH = 0.5
"""Seconds between two drawings: drawing uses a core that a run is being timed on."""


class Progress(Protocol):
    """What a study tells about itself."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def started(self, spec: RunSpec) -> None:
        """A run began."""

    def ended(self, spec: RunSpec, record: Mapping[str, Any], seconds: float) -> None:
        """A run ended after ``seconds`` and is stored."""

    def tick(self) -> None:
        """Time passed."""


class Silent:
    """Says nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def started(self, spec: RunSpec) -> None:
        """Say nothing."""

    def ended(self, spec: RunSpec, record: Mapping[str, Any], seconds: float) -> None:
        """Say nothing."""

    def tick(self) -> None:
        """Say nothing."""


class Clockwork:
    """Counts and time left, common to both displays.

    Args:
        total: runs to do now, without those that were stored before.
        seconds: guess of what each run takes, by run id; replaced by what runs took as they end.
        jobs: runs at a time.
    """

    def __init__(self, total: int, seconds: Mapping[str, float], jobs: int = 1) -> None:
        self.total = total
        self.done = 0
        self.counts: Counter[str] = Counter()
        self.running: dict[str, tuple[RunSpec, float]] = {}
        self._guess = dict(seconds)
        self._guessed = 0.0
        self._taken = 0.0
        self._jobs = jobs

    def start(self, spec: RunSpec) -> None:
        """Note that a run began."""
        self.running[spec.id] = (spec, time.monotonic())

    def end(self, spec: RunSpec, status: str, seconds: float) -> None:
        """Note that a run ended."""
        self.running.pop(spec.id, None)
        self.done += 1
        self.counts[status] += 1
        self._guessed += self._guess.pop(spec.id, seconds)
        self._taken += seconds

    def left(self) -> float:
        """Seconds left: what remains of the guess, scaled by how wrong the guess has been so far."""
        # Ten guessed seconds of trust, so that one quick run does not promise a quick study.
        wrong = (self._taken + 10.0) / (self._guessed + 10.0)
        remaining = sum(self._guess.values()) * wrong
        for key, (_, began) in self.running.items():
            remaining -= min(time.monotonic() - began, self._guess.get(key, 0.0) * wrong)
        return max(0.0, remaining) / self._jobs

    def statuses(self) -> str:
        """``12 reached, 1 crashed``."""
        return ", ".join(f"{n} {status}" for status, n in sorted(self.counts.items(), key=lambda item: -item[1]))


class Plain:
    """One line per run, for logs and pipes."""

    def __init__(self, clockwork: Clockwork, stream: TextIO | None = None) -> None:
        self._clock = clockwork
        self._stream = stream or sys.stderr

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def started(self, spec: RunSpec) -> None:
        """Remember when."""
        self._clock.start(spec)

    def ended(self, spec: RunSpec, record: Mapping[str, Any], seconds: float) -> None:
        """Print the run's line."""
        clock = self._clock
        clock.end(spec, record["status"], seconds)
        print(
            f"[{clock.done}/{clock.total}] {spec.label}: {record['status']} in {duration(seconds)} ({record['reason']})"
            + (f"; about {duration(clock.left())} left" if clock.done < clock.total else ""),
            file=self._stream,
            flush=True,
        )

    def tick(self) -> None:
        """Nothing to draw."""


class Bar:
    """A live bar: the current runs, counts by status, time left; failed runs stay on the screen as lines."""

    def __init__(self, clockwork: Clockwork, stream: TextIO | None = None) -> None:
        self._clock = clockwork
        self._stream = stream or sys.stderr
        self._drawn = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Bar:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream)
        self._live = Live(console=console, auto_refresh=False, transient=True, get_renderable=self._render)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, spec: RunSpec) -> None:
        """Show the run as current."""
        self._clock.start(spec)
        self.tick()

    def ended(self, spec: RunSpec, record: Mapping[str, Any], seconds: float) -> None:
        """Count it; keep a line if it says something about the machine or the method's code."""
        status = record["status"]
        self._clock.end(spec, status, seconds)
        if status in {"crashed", "timeout", "out_of_memory"} and self._live is not None:
            line = f"{spec.label}: {status}: {record['reason']}"
            self._live.console.print(line, style="yellow", markup=False, highlight=False)
        self.tick()

    def tick(self) -> None:
        """Draw, but not more often than every :data:`REFRESH` seconds."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn >= REFRESH:
            self._drawn = now
            self._live.refresh()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        clock = self._clock
        head = Table.grid(padding=(0, 1))
        head.add_row(
            ProgressBar(total=max(1, clock.total), completed=clock.done, width=30),
            f"{clock.done}/{clock.total}",
            f"about {duration(clock.left())} left",
            clock.statuses(),
        )
        now = time.monotonic()
        return Group(
            head, *(Text(f"  {spec.label}  {duration(now - began)}", "dim") for spec, began in clock.running.values())
        )


def display(clockwork: Clockwork, stream: TextIO | None = None) -> Progress:
    """The live bar on a terminal that can draw it, plain lines elsewhere. Colours follow NO_COLOR (rich does)."""
    stream = stream or sys.stderr
    from rich.console import Console

    console = Console(file=stream)
    return Bar(clockwork, stream) if console.is_terminal and not console.is_dumb_terminal else Plain(clockwork, stream)


def duration(seconds: float) -> str:
    """``0.4 s``, ``32 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
