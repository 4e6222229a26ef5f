"""Whether a run had its cores to itself: what other processes used of them, and what the host did not give.

The load average cannot tell: it counts the study's own earlier runs. The kernel's counters per core can.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

OTHERS, STEAL = 0.10, 0.05
"""Shares above which a run's times are called doubtful."""
MINIMUM_SECONDS = 0.2
"""The kernel counts in ticks of 10 ms: over less time the shares would be noise."""


@dataclass(frozen=True)
class Shares:
    """Shares of a run's cores over its time; None where the kernel does not tell or the run was too short.

    Args:
        others: used by other processes.
        steal: not given to this machine by its host.
    """

    others: float | None
    steal: float | None

    @property
    def busy(self) -> str | None:
        """A sentence if the times of the run are doubtful."""
        found = []
        if self.others is not None and self.others > OTHERS:
            found.append(f"other processes used {self.others:.0%} of its cores")
        if self.steal is not None and self.steal > STEAL:
            found.append(f"the host withheld {self.steal:.0%} of its cores")
        return " and ".join(found) or None


class Contention:
    """Reads the kernel's counters of the cores that this process may use, from its construction on."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._began = self._now()

    def read(self) -> Shares:
        """The shares since the construction."""
        now = self._now()
        if self._began is None or now is None or not self._cores:
            return Shares(None, None)
        wall, used, stolen, own = (b - a for a, b in zip(self._began, now, strict=True))
        if wall < MINIMUM_SECONDS:
            return Shares(None, None)
        whole = wall * len(self._cores)
        return Shares(max(0.0, used - own) / whole, max(0.0, stolen) / whole)

    def _now(self) -> tuple[float, float, float, float] | None:
        """``(wall, busy, stolen, own)`` seconds, the middle two summed over the cores."""
        try:
            lines = self._stat.read_text().splitlines()
        except OSError:
            return None
        tick = os.sysconf("SC_CLK_TCK")
        names = {f"cpu{core}" for core in self._cores}
        rows = [line.split() for line in lines]
        rows = [row for row in rows if row and row[0] in names and len(row) >= 9]
        if len(rows) != len(names):
            return None
        # user, nice, system, idle, iowait, irq, softirq, steal
        busy = sum(int(row[i]) for row in rows for i in (1, 2, 3, 6, 7))
        stolen = sum(int(row[8]) for row in rows)
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return time.monotonic(), busy / tick, stolen / tick, own
