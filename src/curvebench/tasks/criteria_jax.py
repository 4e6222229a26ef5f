"""Criteria in jax: the twin of :mod:`curvebench.tasks.criteria_torch`, where each is explained."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

SMOOTHING = 0.1
"""Share of a label that is spread over all classes."""


def squared(outputs: Array, targets: Array) -> Array:
    """``mean (o - y)^2 / 2`` over all elements."""
    return jnp.square(outputs - targets).mean() / 2


def squared_norm(outputs: Array, targets: Array) -> Array:
    """``mean_i ||o_i - y_i||^2 / 2``."""
    return jnp.square(outputs - targets).sum() / (2 * len(outputs))


def quartic_norm(outputs: Array, targets: Array) -> Array:
    """``mean_i ||o_i - y_i||^4 / 4``."""
    squares = jnp.square(outputs - targets).reshape(len(outputs), -1).sum(1)
    return jnp.square(squares).mean() / 4


def logistic(outputs: Array, targets: Array) -> Array:
    """``mean log(1 + exp(-y o))`` for labels +-1."""
    return jax.nn.softplus(-targets * outputs).mean()


def logistic_ridge(outputs: Array, targets: Array) -> Array:
    """``mean_i log(1 + exp(-y_i o_i0)) + ||o_i1..||^2 / 2``."""
    return logistic(outputs[:, 0], targets) + jnp.square(outputs[:, 1:]).sum() / (2 * len(outputs))


def bernoulli(outputs: Array, targets: Array) -> Array:
    """``mean_i sum_j log(1 + exp(o_ij)) - y_ij o_ij``."""
    return (jax.nn.softplus(outputs) - targets * outputs).sum() / len(outputs)


def poisson(outputs: Array, targets: Array) -> Array:
    """``mean_i sum_j exp(o_ij) - y_ij o_ij``."""
    return (jnp.exp(outputs) - targets * outputs).sum() / len(outputs)


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """``mean -log softmax(o)_y`` over all integer labels, one or several a sample."""
    logits = jax.nn.log_softmax(outputs)
    return -jnp.take_along_axis(logits, targets[..., None], axis=-1).mean()


def smoothed_cross_entropy(outputs: Array, targets: Array) -> Array:
    """``mean -sum_c q_c log softmax(o)_c``, ``q = (1 - s) onehot(y) + s / classes``, s = :data:`SMOOTHING`."""
    return (1 - SMOOTHING) * cross_entropy(outputs, targets) - SMOOTHING * jax.nn.log_softmax(outputs).mean()


def log_sum_exp(outputs: Array, targets: Array) -> Array:
    """``mean_i log sum_j exp(o_ij - y_ij)``."""
    return jnp.mean(logsumexp(outputs - targets, axis=1))


def mean(outputs: Array, targets: Array) -> Array:
    """``mean o``; targets are ignored."""
    return outputs.mean()


def entropic(outputs: Array, targets: Array) -> Array:
    """``log mean_i exp(o_i - y_i)``."""
    value: Array = logsumexp(outputs - targets, axis=0)
    return value - math.log(len(outputs))


CRITERIA: dict[str, Callable[[Array, Array], Array]] = {
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
