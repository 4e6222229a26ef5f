"""The fingerprint of a machine: what timings may be compared across. Imports neither torch nor jax.

Only what is stable over reboots and the same in a whole class of machines enters the key: never a host name, a clock
frequency of the moment or a kernel version. BLAS belongs to the ``code`` key, through NumPy's version.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from curvebench.types import Json

ISA = ("sse4_2", "avx", "avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2")
"""Instruction sets that change the speed of GEMM; hypervisors hide some of them under one model name."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What a process's numerical libraries read once, when they start."""

KEYED = ("cpu", "isa", "cores", "memory_class_gib", "os", "arch", "python", "gpus")


def fingerprint(gpus: Iterable[str] = ()) -> Json:
    """Describe this machine in plain JSON types. Call it before pinning: available cores are a part of it.

    Args:
        gpus: names of the accelerators that may be used, as their framework calls them.
    """
    cpu, isa = processor()
    memory = psutil.virtual_memory().total / 2**30
    return {
        "cpu": cpu,
        "isa": isa,
        "cores": {
            "physical": psutil.cpu_count(logical=False),
            "logical": psutil.cpu_count(logical=True),
            "available": available_cores(),
        },
        "memory_gib": round(memory),
        "memory_class_gib": memory_class(memory),
        "os": platform.system(),
        "arch": platform.machine(),
        "kernel": platform.release(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "gpus": sorted(gpus),
    }


def key(fingerprint: Json) -> str:
    """64 hex digits of the fields that make timings comparable (:data:`KEYED`); kernel and exact memory do not."""
    content = {name: fingerprint.get(name) for name in KEYED}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def describe(fingerprint: Json) -> str:
    """One line for a person, e.g. ``AMD EPYC 7763, 2 cores, 16 GiB, Linux, Python 3.11``."""
    cores = fingerprint.get("cores")
    count = cores.get("available") if isinstance(cores, dict) else None
    parts = [
        str(fingerprint.get("cpu") or "unknown processor"),
        f"{count} core{'' if count == 1 else 's'}" if count else "",
        *(str(name) for name in fingerprint.get("gpus") or ()),
        f"{fingerprint['memory_gib']} GiB" if fingerprint.get("memory_gib") else "",
        str(fingerprint.get("os") or ""),
        f"Python {fingerprint['python']}" if fingerprint.get("python") else "",
    ]
    return ", ".join(part for part in parts if part)


def affinity() -> tuple[int, ...]:
    """The core numbers that this process may use, sorted; all of them where the system has no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def available_cores() -> int:
    """How many cores this process may keep busy: its affinity, or less if a container's quota says so."""
    return max(1, math.ceil(min(len(affinity()), quota())))


def quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """CPU seconds per second that the control group allows (version 2, then 1); infinity if unlimited or unknown."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
        return math.inf if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu/cpu.cfs_period_us").read_text())
        return limit_us / period_us if limit_us > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def load() -> float | None:
    """Mean number of runnable processes over the last minute; None where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def memory_class(gib: float) -> float:
    """The size that was bought, not what the kernel left over: the nearest of 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, ...

    Compared in the logarithm, so that a reserve of a few percent never decides.
    """
    sizes = [base * 2.0**power for power in range(-2, 16) for base in (1.0, 1.5)]
    return min(sizes, key=lambda size: abs(math.log(max(gib, 0.1) / size)))


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, list[str]]:
    """The model of the processor and which of :data:`ISA` it has."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return " ".join(platform.processor().split()) or platform.machine() or "unknown", []
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip().lower(), " ".join(value.split()))
    flags = set((facts.get("flags") or facts.get("features") or "").split())
    model = facts.get("model name") or facts.get("hardware")
    if not model and "cpu part" in facts:  # ARM's kernel prints numbers where x86's prints a name
        model = f"ARM implementer {facts.get('cpu implementer', '?')} part {facts['cpu part']}"
    return model or platform.machine() or "unknown", [name for name in ISA if name in flags]
