"""Metrics, the same arithmetic for torch's tensors and jax's arrays.

A metric is a function of averages: ``terms(outputs, targets)`` gives one or more numbers per sample ``[batch]``, they
are averaged over all samples of a split (in chunks), and ``value`` of the averages is the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """``value(mean_i terms(o_i, y_i))``.

    Args:
        terms: ``(outputs [batch, ...], targets) -> ([batch], ...)``.
        value: the metric from the averages of the terms.
    """

    terms: Callable[[Any, Any], tuple[Any, ...]]
    value: Callable[..., float]


def _squares(array: Any) -> Any:
    return (array**2).reshape(len(array), -1).sum(-1)


def _same(mean: float) -> float:
    return mean


METRICS: dict[str, Metric] = {
    # share of samples whose largest output is the label's
    "accuracy": Metric(lambda o, y: (o.argmax(-1) == y,), _same),
    # mean_i ||o_i - y_i||^2
    "squared-error": Metric(lambda o, y: (_squares(o - y),), _same),
    # ||o - y|| / ||y|| over the whole split
    "relative-l2": Metric(lambda o, y: (_squares(o - y), _squares(y)), lambda error, size: math.sqrt(error / size)),
    # standard deviation of o - y; its mean is taken out first by Koenig's formula, good to 1e-8 of the mean in float64
    "deviation": Metric(lambda o, y: (o - y, (o - y) ** 2), lambda mean, square: math.sqrt(max(square - mean**2, 0.0))),
}
