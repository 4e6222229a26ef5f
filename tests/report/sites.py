"""A site with everything on it.

Also run by hand: ``PYTHONPATH=tests/store python tests/report/sites.py FOLDER [RECORDS]``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from synthetic import make, quick_study

from curvebench.report import site
from curvebench.store import Record, write_tuned

HOSTILE = '</script><script>document.title="taken"</script> "quoted" & `code`'
"""What somebody may call a method."""


def build(out: Path) -> Path:
    """The site of a study with failures, an older version of a row, a hostile title and a tuning pool."""
    past = {"keys__code": "0" * 64, "provenance__started": "2020-01-01T00:00:00+00:00"}
    older = make("adam", task="least-squares", **past)
    hostile = make("hostile", task="digits-cnn", direction="max", target=0.95, title__method=HOSTILE)
    trials = [{"status": "reached", "metric": 10.0**-k, "hyperparameters": {"lr": 0.1}} for k in range(4)]
    pool = {
        "task": "least-squares",
        "method": "adam",
        "scale": "quick",
        "framework": "torch",
        "pool": "sobol-quick",
        "trials": 4,
        "hyperparameters": {"lr": 0.1},
        "metric": 1e-3,
        "label": "f(x) - f*",
        "cost": {"seconds": 2.0, "oracle_calls": 4000},
        "runs": trials,
    }
    write_tuned(out / "tuned", pool, twin=True)
    site.build([*quick_study(), older, hostile], out / "report", out / "tuned")
    return out / "report"


def many(count: int) -> Iterator[Record]:
    """So many records: tasks of 50 methods in 2 frameworks with 10 seeds."""
    for place in range(count):
        rest, seed = divmod(place, 10)
        rest, framework = divmod(rest, 2)
        task, method = divmod(rest, 50)
        options = {"rate": 0.004 + 0.0008 * method, "step_seconds": 2e-5 * (1 + method % 7), "every": 25}
        yield make(f"method-{method:02d}", ("torch", "jax")[framework], seed, task=f"task-{task}", **options)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        records = list(many(int(sys.argv[2])))
        start = time.process_time()
        site.build(records, folder / "report", folder / "tuned")
        print(f"{len(records)} records: {time.process_time() - start:.1f} s of CPU time")
    else:
        build(folder)
    print(folder / "report" / "index.html")
