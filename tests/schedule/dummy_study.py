"""A study of dummies as a process of its own: ``python -m dummy_study RECORDS METHOD RUNS [JOBS [TIMEOUT]]``.

It ends as ``curvebench bench`` does, because it calls the same functions; only cards and table are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dummies import spec

from curvebench.cli.bench import carry_out
from curvebench.errors import CurvebenchError
from curvebench.schedule import Options, jobs_of
from curvebench.store import Store


def main(records: str, method: str, runs: str, jobs: str = "1", timeout: str = "60") -> None:
    specs = [spec(method, block) for block in range(int(runs))]
    options = Options(jobs=int(jobs), timeout=float(timeout), worker="dummies:work")
    try:
        summary = carry_out(jobs_of(specs, lambda _: "c" * 64), Store(Path(records)), options)
    except CurvebenchError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{summary.total} runs, {summary.stored} stored before, {summary.ran} done")


if __name__ == "__main__":
    main(*sys.argv[1:])
