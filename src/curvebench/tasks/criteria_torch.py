"""Criteria in torch: ``(outputs [batch, ...], targets) -> []``; the twin of :mod:`curvebench.tasks.criteria_jax`.

All but ``entropic`` are means over the batch of one term per sample, so that per-sample gradients exist. All but
``mean`` are convex in the outputs, so that the generalised Gauss-Newton matrix is positive semidefinite; ``mean`` is
linear in them: its Gauss-Newton matrix is zero, and a task that uses it refuses that query.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTHING = 0.1
"""Share of a label that is spread over all classes (Szegedy et al. 2016), in ``smoothed-cross-entropy``."""


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean (o - y)^2 / 2`` over all elements."""
    return (outputs - targets).square().mean() / 2


def squared_norm(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean_i ||o_i - y_i||^2 / 2``: residual vectors."""
    return (outputs - targets).square().sum() / (2 * len(outputs))


def quartic_norm(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean_i ||o_i - y_i||^4 / 4``."""
    return (outputs - targets).square().flatten(1).sum(1).square().mean() / 4


def logistic(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean log(1 + exp(-y o))`` for labels +-1."""
    return -F.logsigmoid(targets * outputs).mean()  # softplus either linearises beyond a threshold or overflows


def logistic_ridge(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean_i log(1 + exp(-y_i o_i0)) + ||o_i1..||^2 / 2``: a regulariser that is no multiple of ``||theta||^2``."""
    return logistic(outputs[:, 0], targets) + outputs[:, 1:].square().sum() / (2 * len(outputs))


def bernoulli(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean_i sum_j log(1 + exp(o_ij)) - y_ij o_ij`` for logits and intensities in [0, 1]."""
    return -(F.logsigmoid(-outputs) + targets * outputs).sum() / len(outputs)


def poisson(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean_i sum_j exp(o_ij) - y_ij o_ij`` for logarithms of intensities."""
    return (outputs.exp() - targets * outputs).sum() / len(outputs)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean -log softmax(o)_y`` over all integer labels, one or several a sample: ``[batch, ..., classes]``."""
    return F.cross_entropy(outputs, targets) if outputs.ndim == 2 else _by_label(outputs, targets)


def smoothed_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean -sum_c q_c log softmax(o)_c`` with ``q = (1 - s) onehot(y) + s / classes``, s = :data:`SMOOTHING`.

    Its Hessian in the outputs is cross-entropy's, whatever s: the Gauss-Newton matrix is the same.
    """
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), label_smoothing=SMOOTHING)


def _by_label(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def log_sum_exp(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean_i log sum_j exp(o_ij - y_ij)``."""
    return torch.logsumexp(outputs - targets, dim=1).mean()


def mean(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean o``: the module computes each sample's objective; targets are ignored."""
    return outputs.mean()


def entropic(outputs: Tensor, targets: Tensor) -> Tensor:
    """``log mean_i exp(o_i - y_i)``: entropic risk; one number of the whole batch, not a mean over samples."""
    return torch.logsumexp(outputs - targets, dim=0) - math.log(len(outputs))


CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": squared,
    "squared-norm": squared_norm,
    "quartic-norm": quartic_norm,
    "logistic": logistic,
    "logistic-ridge": logistic_ridge,
    "bernoulli": bernoulli,
    "cross-entropy": cross_entropy,
    "smoothed-cross-entropy": smoothed_cross_entropy,
    "log-sum-exp": log_sum_exp,
    "poisson": poisson,
    "mean": mean,
    "entropic": entropic,
}
