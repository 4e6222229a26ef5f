"""Records in, tables and figures out: pure functions of records, with neither torch nor jax.

``tables`` makes one table per task, ``render`` prints it, ``curves`` draws it, ``build`` writes everything.
"""

from curvebench.report.build import build
from curvebench.report.groups import Group, Row, groups, of_study
from curvebench.report.tables import TaskTable, tables

__all__ = ["Group", "Row", "TaskTable", "build", "groups", "of_study", "tables"]
