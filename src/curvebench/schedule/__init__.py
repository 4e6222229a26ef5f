"""From a study to stored records: plan the runs, skip what is stored, run the rest in isolated processes."""

from curvebench.schedule.estimate import Estimate, estimate
from curvebench.schedule.plan import Choice, expand, specify
from curvebench.schedule.signals import Stopped
from curvebench.schedule.study import Job, Options, Summary, jobs_of, run_study, unsettled

__all__ = [
    "Choice",
    "Estimate",
    "Job",
    "Options",
    "Stopped",
    "Summary",
    "estimate",
    "expand",
    "jobs_of",
    "run_study",
    "specify",
    "unsettled",
]
