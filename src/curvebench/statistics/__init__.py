"""Numbers with their doubt: intervals, times to a target with misses, ranks, profiles, what a study can detect.

NumPy and SciPy only; SciPy's own estimator or test wherever it has one. Every function is pure; what is random is
seeded. docs/statistics.md says what each figure means.
"""

from curvebench.statistics.compare import within_noise
from curvebench.statistics.estimate import Estimate, interval
from curvebench.statistics.target import to_target

__all__ = ["Estimate", "interval", "to_target", "within_noise"]
