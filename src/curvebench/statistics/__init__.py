"""Numbers with their doubt: intervals of means, times to a target with misses, who is within noise of the best.

NumPy and SciPy only. Every function is pure; what is random is seeded.
"""

from curvebench.statistics.compare import within_noise
from curvebench.statistics.estimate import Estimate, interval
from curvebench.statistics.target import to_target

__all__ = ["Estimate", "interval", "to_target", "within_noise"]
