"""Which cores a run has for itself."""

from __future__ import annotations

import os

from curvebench.errors import CurvebenchError


def available() -> tuple[int, ...]:
    """Cores that this process may use, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def partition(cores: tuple[int, ...], jobs: int) -> list[tuple[int, ...]]:
    """Split cores into ``jobs`` disjoint neighbouring sets of one size; what is left over stays idle.

    Equal sizes, so that no run is faster for the place it got.

    Raises:
        CurvebenchError: fewer cores than jobs, or jobs < 1.
    """
    if jobs < 1:
        raise CurvebenchError(f"--jobs {jobs}: must be at least 1")
    if jobs > len(cores):
        raise CurvebenchError(
            f"--jobs {jobs}: must be at most {len(cores)}, the number of cores here; "
            "every run has its own, so that its clock is not another run's"
        )
    size = len(cores) // jobs
    return [cores[i * size : (i + 1) * size] for i in range(jobs)]
