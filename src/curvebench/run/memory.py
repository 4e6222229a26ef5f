"""Peak resident memory of this process, as the kernel counts it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path


def resident() -> tuple[int, int] | None:
    """``(current, peak)`` resident bytes, or None where the kernel does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    fields = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    if len(fields) != 2:
        return None
    return int(fields["VmRSS"]) * 1024, int(fields["VmHWM"]) * 1024


def reset_peak() -> bool:
    """Set the kernel's high-water mark to the current size; False where it cannot be reset."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


class PeakMemory:
    """Peak resident bytes above what the process held when the measurement began."""

    def __init__(self) -> None:
        self._base = resident()[0] if reset_peak() and resident() else None  # type: ignore[index]  # checked beside it

    def read(self) -> tuple[int | None, str]:
        """``(bytes, how)``: None, never 0, where it is not measurable."""
        now = resident()
        if self._base is None or now is None:
            return None, "not measurable: this kernel has no resettable high-water mark"
        return max(now[1] - self._base, 0), "VmHWM above the process before parameters, compilation included"


def host_step_peak(step: Callable[[], object]) -> tuple[int | None, str]:
    """Run ``step`` and return the peak of its resident memory above what stands before it.

    Free memory is first given back to the kernel, so that the step pays for what it uses; what the allocator keeps of
    the step is not the step's.
    """
    trimmed = trim()
    can = reset_peak()
    before = resident()
    step()
    after = resident()
    if not can or before is None or after is None:
        return None, "not measurable: this kernel has no resettable high-water mark"
    how = "VmHWM above the process between two steps" + ("" if trimmed else ", free memory not given back before")
    return max(after[1] - before[0], 0), how


def trim() -> bool:
    """Give the allocator's free memory back to the kernel; False where there is no glibc."""
    try:
        return bool(ctypes.CDLL("libc.so.6").malloc_trim(0)) or True
    except (OSError, AttributeError):
        return False
