"""The cards: one TOML file per method, task, data set, study and paper, parsed into frozen dataclasses.

Needs neither torch nor jax nor NumPy. Finding and naming cards (:func:`names`, :func:`headings`, :func:`root`) does
not even need the validator: pydantic is imported when the first card is loaded, so that ``curvebench list`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from curvebench.cards.formula import evaluate
from curvebench.cards.places import KINDS, display, names, origin, path_of, root
from curvebench.cards.reading import headings

if TYPE_CHECKING:
    from curvebench.cards.base import Card
    from curvebench.cards.dataset_card import Archive, DatasetCard, DatasetFile, Normalisation
    from curvebench.cards.hyperparameters import Hyperparameter
    from curvebench.cards.interval import Interval
    from curvebench.cards.loading import build, dataset, load, load_all, load_file, method, paper, study, task
    from curvebench.cards.method_card import Cost, Implementation, MethodCard, Paper, Search
    from curvebench.cards.paper_card import Cell, Claim, Decision, Measure, PaperCard, PaperTable
    from curvebench.cards.rate_schedule import RateSchedule
    from curvebench.cards.study_card import StudyBudget, StudyCard
    from curvebench.cards.task_card import Metric, Optimum, TaskCard, TaskScale

_LAZY = {
    "base": ("Card",),
    "dataset_card": ("Archive", "DatasetCard", "DatasetFile", "Normalisation"),
    "hyperparameters": ("Hyperparameter",),
    "interval": ("Interval",),
    "loading": ("build", "dataset", "load", "load_all", "load_file", "method", "paper", "study", "task"),
    "method_card": ("Cost", "Implementation", "MethodCard", "Paper", "Search"),
    "paper_card": ("Cell", "Claim", "Decision", "Measure", "PaperCard", "PaperTable"),
    "rate_schedule": ("RateSchedule",),
    "study_card": ("StudyBudget", "StudyCard"),
    "task_card": ("Metric", "Optimum", "TaskCard", "TaskScale"),
}
_HOME = {name: module for module, names_ in _LAZY.items() for name in names_}

__all__ = [
    "KINDS",
    "Archive",
    "Card",
    "Cell",
    "Claim",
    "Cost",
    "DatasetCard",
    "DatasetFile",
    "Decision",
    "Hyperparameter",
    "Implementation",
    "Interval",
    "Measure",
    "MethodCard",
    "Metric",
    "Normalisation",
    "Optimum",
    "Paper",
    "PaperCard",
    "PaperTable",
    "RateSchedule",
    "Search",
    "StudyBudget",
    "StudyCard",
    "TaskCard",
    "TaskScale",
    "build",
    "dataset",
    "display",
    "evaluate",
    "headings",
    "load",
    "load_all",
    "load_file",
    "method",
    "names",
    "origin",
    "paper",
    "path_of",
    "root",
    "study",
    "task",
]


def __getattr__(name: str) -> Any:
    """Import the validator on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
