"""Records of runs, one file each: the schema, the append-only folder of them, and the tuned hyperparameters."""

from curvebench.store.folder import Problem, Store, StoreWarning
from curvebench.store.record import (
    MIGRATIONS,
    SCHEMA,
    Axes,
    Curve,
    Final,
    Git,
    Keys,
    Memory,
    Metric,
    NewerSchemaError,
    Provenance,
    Record,
    RecordError,
    Seconds,
    StepTime,
    Title,
)
from curvebench.store.tuned import tuned, tuned_path, write_tuned

__all__ = [
    "MIGRATIONS",
    "SCHEMA",
    "Axes",
    "Curve",
    "Final",
    "Git",
    "Keys",
    "Memory",
    "Metric",
    "NewerSchemaError",
    "Problem",
    "Provenance",
    "Record",
    "RecordError",
    "Seconds",
    "StepTime",
    "Store",
    "StoreWarning",
    "Title",
    "tuned",
    "tuned_path",
    "write_tuned",
]
