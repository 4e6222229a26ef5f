"""Whose gradients make a Fisher matrix of the task's mean loss, in jax: see :mod:`curvebench.oracle.fisher_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from curvebench.errors import CurvebenchError
from curvebench.kernels.kronecker_jax import FISHERS, LIKELIHOODS, fisher_columns

__all__ = ["FISHERS", "measured_terms", "pulled_vectors", "refuse"]

Criterion = Callable[[Array, Array], Array]
Draw = Callable[[str, tuple[int, ...]], Array]
NEAR = 1e-3
"""Relative difference of two Hessians that rounding can explain, in single precision and over many terms."""


def pulled_vectors(
    criterion: Criterion, outputs: Array, targets: Array, likelihood: str, fisher: str, draw: Draw
) -> tuple[Array, Array]:
    """Vectors ``[K, *outputs]``, and the number ``T`` of terms of the mean loss, ``[]``; traceable.

    With ``J`` the Jacobian of the outputs, ``sum_k (J' v_k)(J' v_k)' / T`` over terms is the Gauss-Newton matrix
    (``fisher = 'type-2'``), or has it as its expectation (``'mc'``). A trace cannot raise: ``T`` is NaN where the
    criterion is no mean of its likelihood's terms; :func:`refuse` says so before training.

    Raises:
        CurvebenchError: the criterion has no likelihood, or the classes cannot be told from the targets' shape.
    """
    if likelihood not in LIKELIHOODS:
        raise CurvebenchError(
            f"fisher = {fisher!r}: the task's criterion is no negative log-likelihood, so no targets can be sampled: "
            "use 'empirical'"
        )
    terms, ratio = measured_terms(criterion, outputs, targets, likelihood)
    del ratio
    if likelihood != "categorical":
        rows = outputs.reshape(len(outputs), -1)  # every number of a sample is an output of its own
        columns = fisher_columns(rows, likelihood, fisher, draw)
        return columns.reshape(-1, *outputs.shape), terms
    dim = _class_dimension(outputs.shape, targets.shape)
    counted = jnp.expand_dims(targets >= 0, dim)
    columns = fisher_columns(jnp.moveaxis(outputs, dim, -1), likelihood, fisher, draw)
    return jnp.moveaxis(columns, -1, dim + 1) * counted, terms


def measured_terms(criterion: Criterion, outputs: Array, targets: Array, likelihood: str) -> tuple[Array, Array]:
    """``T`` such that the criterion's Hessian in the outputs is the likelihood's over ``T``, else NaN; and their ratio.

    Both are taken at outputs of zero, where no sigmoid is flat, in one direction.
    """
    v = jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape)
    slope = jax.grad(lambda o: criterion(o, targets))
    _, measured = jax.jvp(slope, (jnp.zeros_like(outputs),), (v,))
    if likelihood == "categorical":
        dim = _class_dimension(outputs.shape, targets.shape)
        counted = jnp.expand_dims(targets >= 0, dim)
        wanted = counted * (v - v.mean(dim, keepdims=True)) / v.shape[dim]
    else:
        wanted = (1.0 if likelihood == "gaussian" else 0.25) * v
    ratio = (v * wanted).sum() / (v * measured).sum()
    terms = jnp.round(ratio)
    near = jnp.abs(ratio - terms) <= NEAR * terms
    alike = jnp.abs(terms * measured - wanted).max() <= NEAR * jnp.abs(wanted).max()
    return jnp.where((terms >= 1) & near & alike, terms, jnp.nan), ratio


def refuse(criterion: Criterion, shape: Any, targets: Array, likelihood: str, fisher: str) -> None:
    """Raise before training where :func:`pulled_vectors` could only answer NaN.

    Args:
        criterion: mean loss.
        shape: the outputs' shape and dtype, as from ``jax.eval_shape``.
        targets: of one batch, with values.
        likelihood: of the criterion.
        fisher: ``mc`` or ``type-2``.

    Raises:
        CurvebenchError: the criterion is no mean over terms of its likelihood's negative logarithm.
    """
    if likelihood not in LIKELIHOODS:
        raise CurvebenchError(
            f"fisher = {fisher!r}: the task's criterion is no negative log-likelihood, so no targets can be sampled: "
            "use 'empirical'"
        )
    zeros = jnp.zeros(shape.shape, shape.dtype)
    terms, ratio = jax.jit(lambda o, y: measured_terms(criterion, o, y, likelihood))(zeros, targets)
    if not jnp.isfinite(terms):
        raise CurvebenchError(
            "the task's criterion is not the mean over terms of its likelihood's negative logarithm: their Hessians in "
            f"the outputs differ by {float(ratio):g} in one direction and by other factors elsewhere: use "
            "fisher = 'empirical'"
        )


def _class_dimension(outputs: tuple[int, ...], targets: tuple[int, ...]) -> int:
    """Where the classes lie: last, or second as in ``torch.nn.functional.cross_entropy``."""
    fits = {dim for dim in (1, len(outputs) - 1) if dim > 0 and outputs[:dim] + outputs[dim + 1 :] == targets}
    if len(fits) != 1:
        raise CurvebenchError(
            f"outputs {list(outputs)} and targets {list(targets)}: the classes must be the second or the last "
            "dimension of the outputs, and the only one that the targets lack"
        )
    return fits.pop()
