"""Records as one parquet, and as results that benchopt opens."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvebench.errors import MissingPackageError, StoreError
from curvebench.store import Record
from curvebench.store.files import explained
from curvebench.types import Json

if TYPE_CHECKING:
    import pandas as pd

BENCHOPT = '''"""What `benchopt plot` needs to know of a benchmark. Written by `curvebench export --format benchopt`.

The runs are curvebench's: they cannot be repeated with `benchopt run`.
"""

from benchopt import BaseObjective


class Objective(BaseObjective):
    name = "curvebench"
    min_benchopt_version = "1.6"

    def set_data(self, **data):
        self.data = data

    def get_objective(self):
        return self.data

    def evaluate_result(self, value):
        return {"value": value}

    def get_one_result(self):
        return {"value": 0.0}
'''


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One line per record: every scalar under its path with dots, curves as lists, and the record itself as JSON.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    pandas = needed()
    rows = []
    for record in records:
        data = record.to_json()
        row: Json = {"name": record.name}
        row.update(flat({key: value for key, value in data.items() if key not in ("curve", "ledger")}))
        row.update({f"curve.{key}": value for key, value in data["curve"].items()})
        row.update({f"ledger.{k}": v for k, v in data["ledger"].items() if isinstance(v, (int, float))})
        row["record"] = json.dumps(data, allow_nan=False)
        rows.append(row)
    table: pd.DataFrame = pandas.DataFrame(rows)
    return table


def flat(data: Json, prefix: str = "") -> Json:
    """Nested objects as paths; lists, and the open-ended fingerprint of the machine, as JSON text."""
    out: Json = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in ("provenance.machine", "spec.hyperparameters", "spec.cards"):
            out.update(flat(value, f"{path}."))
        else:
            out[path] = json.dumps(value) if isinstance(value, (dict, list)) else value
    return out


def parquet(records: Sequence[Record], path: Path) -> Path:
    """Write :func:`frame` as one parquet.

    Raises:
        StoreError: there are no records, or the file cannot be written.
        MissingPackageError: pandas or pyarrow is not installed.
    """
    some(records)
    write(frame(records), path)
    return path


def benchopt_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One line per evaluation in benchopt's columns.

    ``objective_name`` is the task with its scale, ``dataset_name`` its data (the task's name: a card has its own),
    ``solver_name`` method and framework with what tells its settings apart, ``idx_rep`` the seed block, ``stop_val``
    the step, ``time`` seconds on the clock, ``objective_value`` the metric, ``objective_loss`` and
    ``objective_test`` what they say, ``p_solver_<name>`` the hyperparameters.
    """
    from curvebench.report.groups import groups

    pandas = needed()
    rows: list[dict[str, Any]] = []
    for group in groups(records):
        for row in group.rows:
            solver = f"{row.label}[{row.framework}]"
            for record in row.included:
                curve = record.curve
                same = {
                    "objective_name": f"{record.metric.label} [{record.spec.scale}]",
                    "obj_description": record.title.task,
                    "dataset_name": group.stem,
                    "solver_name": solver,
                    "solver_description": record.title.method,
                    "idx_rep": record.spec.seed_block,
                    "sampling_strategy": "Callback",
                    "base_seed": record.spec.seed_block,
                    "platform": str(record.provenance.machine.get("os", "")),
                    "platform-release": str(record.provenance.machine.get("kernel", "")),
                    "platform-architecture": str(record.provenance.machine.get("arch", "")),
                    "system-cpus": (record.provenance.machine.get("cores") or {}).get("available"),
                    "system-processor": str(record.provenance.machine.get("cpu", "")),
                    "system-ram (GB)": record.provenance.machine.get("memory_gib"),
                    "benchmark-git-tag": record.provenance.git.commit if record.provenance.git else "",
                    "version-numpy": record.provenance.versions.get("numpy", ""),
                    **{f"p_solver_{name}": value for name, value in record.spec.hyperparameters},
                }
                for i, step in enumerate(curve.step):
                    rows.append(
                        {
                            **same,
                            "stop_val": step,
                            "time": curve.seconds[i],
                            "objective_value": curve.metric[i],
                            "objective_loss": curve.loss[i],
                            "objective_test": curve.test[i],
                            "objective_oracle_calls": curve.oracle_calls[i],
                        }
                    )
    table: pd.DataFrame = pandas.DataFrame(rows)
    numbers = ["time", *(f"objective_{name}" for name in ("value", "loss", "test", "oracle_calls"))]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    return table.dropna(axis="columns", how="all")


def benchopt(records: Sequence[Record], folder: Path, name: str) -> Path:
    """Write ``folder`` so that ``benchopt plot folder`` opens it: an objective, no solvers, and the results.

    Raises:
        StoreError: there are no records with a curve, or the folder cannot be written.
        MissingPackageError: pandas or pyarrow is not installed.
    """
    some([record for record in records if record.curve.step])
    path = folder / "outputs" / f"{name}.parquet"
    with explained(path, "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in ("solvers", "datasets"):
            (folder / part).mkdir(exist_ok=True)
        (folder / "objective.py").write_text(BENCHOPT)
    write(benchopt_frame(records), path)
    return path


def write(table: pd.DataFrame, path: Path) -> None:
    """A parquet that appears whole or not at all."""
    try:
        import pyarrow  # noqa: F401  # pandas would name another engine
    except ImportError as error:
        raise MissingPackageError("pyarrow", "parquet", "a parquet") from error
    with explained(path, "choose another place"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".parquet")
        os.close(handle)
        try:
            table.to_parquet(draft, engine="pyarrow", index=False)
            os.replace(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)


def some(records: Sequence[Record]) -> None:
    """Refuse to write an empty file."""
    if not records:
        raise StoreError("no record to export")


def needed() -> Any:
    """The module pandas.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError("pandas", "parquet", "a parquet") from error
    return pandas
