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


def _positives(outputs: Any, targets: Any) -> tuple[Any, Any, Any]:
    found, true = outputs.argmax(-1) == 1, targets == 1
    return found & true, found, true


def _f1(both: float, found: float, true: float) -> float:
    return 2 * both / (found + true) if found + true else 0.0


def _matthews(both: float, found: float, true: float) -> float:
    spread = found * (1 - found) * true * (1 - true)
    return (both - found * true) / math.sqrt(spread) if spread > 0 else 0.0


def _moments(outputs: Any, targets: Any) -> tuple[Any, ...]:
    if hasattr(outputs, "double"):  # torch: differences of squares, in float32 blind to a spread of 1e-3
        outputs, targets = outputs.double(), targets.double()
    return outputs, targets, outputs**2, targets**2, outputs * targets


def _pearson(o: float, y: float, oo: float, yy: float, oy: float) -> float:
    spread = (oo - o * o) * (yy - y * y)
    return (oy - o * y) / math.sqrt(spread) if spread > 0 else 0.0


def _label_loss(outputs: Any, targets: Any) -> tuple[Any]:
    """``-log softmax(o)_y`` averaged over each sample's positions."""
    if hasattr(outputs, "log_softmax"):
        chosen = outputs.log_softmax(-1).gather(-1, targets[..., None])
    else:
        import jax

        chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(outputs), targets[..., None], axis=-1)
    return (-chosen.reshape(len(outputs), -1).mean(-1),)


def _divergence(outputs: Any, targets: Any) -> tuple[Any]:
    """``KL(targets || softmax(outputs))`` averaged over each sample's positions."""
    if hasattr(outputs, "log_softmax"):
        logarithms, truth = outputs.log_softmax(-1), targets.log()
    else:
        import jax

        logarithms, truth = jax.nn.log_softmax(outputs), jax.numpy.log(targets)
    return ((targets * (truth - logarithms)).sum(-1).reshape(len(outputs), -1).mean(-1),)


METRICS: dict[str, Metric] = {
    # share of samples whose largest output is the label's
    "accuracy": Metric(lambda o, y: (o.argmax(-1) == y,), _same),
    # mean_i ||o_i - y_i||^2
    "squared-error": Metric(lambda o, y: (_squares(o - y),), _same),
    # of class 1: 2 TP / (2 TP + FP + FN), 0 where nothing is found and nothing true (MRPC, QQP)
    "f1": Metric(_positives, _f1),
    # the correlation of found and true; 0 where one of them is constant (CoLA)
    "matthews": Metric(_positives, _matthews),
    # the correlation of outputs and scores; 0 where one of them is constant (STS-B)
    "pearson": Metric(_moments, _pearson),
    # mean cross-entropy over all labels, one or several a sample
    "token-loss": Metric(_label_loss, _same),
    # mean cross-entropy against the exact distributions of the targets, minus their mean entropy: never below 0
    "excess": Metric(_divergence, _same),
    # ||o - y|| / ||y|| over the whole split
    "relative-l2": Metric(lambda o, y: (_squares(o - y), _squares(y)), lambda error, size: math.sqrt(error / size)),
    # standard deviation of o - y; its mean is taken out first by Koenig's formula, good to 1e-8 of the mean in float64
    "deviation": Metric(lambda o, y: (o - y, (o - y) ** 2), lambda mean, square: math.sqrt(max(square - mean**2, 0.0))),
}
