"""Aliases shared by all layers; imports no framework."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Scalar: TypeAlias = float | int | bool | str
"""A hyperparameter's value."""

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

Parameters: TypeAlias = dict[str, npt.NDArray[np.float64]]
"""Initial parameters in float64, by the name that torch's ``state_dict`` uses; cast once by each framework."""

Json: TypeAlias = dict[str, Any]
"""A JSON object."""
