"""Whose gradients make a Fisher matrix of the task's mean loss: vectors to pull back from the model's outputs.

A criterion is the mean over ``T`` terms of its likelihood's negative logarithm: samples, positions or elements, which
only it knows. ``T`` is measured, by comparing its Hessian in the outputs with the likelihood's. Classes lie in
the outputs' dimension that the targets lack; a negative target is no term, as with torch's ``ignore_index``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from curvebench.errors import CurvebenchError
from curvebench.kernels.kronecker_torch import LIKELIHOODS, fisher_columns

Criterion = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[str, tuple[int, ...]], Tensor]
NEAR = 1e-3
"""Relative difference of two Hessians that rounding can explain, in single precision and over many terms."""


def pulled_vectors(
    criterion: Criterion, outputs: Tensor, targets: Tensor, likelihood: str, fisher: str, draw: Draw
) -> tuple[Iterator[Tensor], int]:
    """Vectors shaped like the outputs, and the number ``T`` of terms of the mean loss.

    With ``J`` the Jacobian of the outputs, ``sum_c (J' v_c)(J' v_c)' / T`` over terms is the Gauss-Newton matrix
    (``fisher = 'type-2'``), or has it as its expectation (``'mc'``).

    Raises:
        CurvebenchError: the criterion is no mean of its likelihood's terms, or categorical outputs have classes that
            cannot be told from the targets' shape.
    """
    if likelihood not in LIKELIHOODS:
        raise CurvebenchError(
            f"fisher = {fisher!r}: the task's criterion is no negative log-likelihood, so no targets can be sampled: "
            "use 'empirical'"
        )
    if likelihood != "categorical":
        rows = outputs.reshape(len(outputs), -1)  # every number of a sample is an output of its own
        columns = (c.view_as(outputs) for c in fisher_columns(rows, likelihood, fisher, draw))
        hessian = 1.0 if likelihood == "gaussian" else 0.25
        return columns, _terms(criterion, outputs, targets, lambda v: hessian * v)
    dim = _class_dimension(tuple(outputs.shape), tuple(targets.shape))
    counted = (targets >= 0).unsqueeze(dim)
    columns = (
        column.movedim(-1, dim) * counted
        for column in fisher_columns(outputs.movedim(dim, -1), likelihood, fisher, draw)
    )
    return columns, _terms(
        criterion, outputs, targets, lambda v: counted * (v - v.mean(dim, keepdim=True)) / v.shape[dim]
    )


def _terms(criterion: Criterion, outputs: Tensor, targets: Tensor, expected: Callable[[Tensor], Tensor]) -> int:
    """``T`` such that the criterion's Hessian is the likelihood's over ``T``.

    Both are taken at outputs of zero, where no sigmoid is flat, in one direction; ``expected(v)`` is the likelihood's
    Hessian there times ``v``.

    Raises:
        CurvebenchError: the two are not proportional, or ``T`` is no whole number.
    """
    v = torch.arange(outputs.numel(), dtype=outputs.dtype, device=outputs.device).cos().view_as(outputs)
    with torch.enable_grad():
        at = torch.zeros_like(outputs, requires_grad=True)
        (slope,) = torch.autograd.grad(criterion(at, targets), at, create_graph=True)
        (measured,) = torch.autograd.grad(slope, at, v) if slope.requires_grad else (torch.zeros_like(v),)
    wanted = expected(v)
    ratio = (v * wanted).sum() / (v * measured).sum()
    terms = round(float(ratio)) if ratio.isfinite() else 0
    wrong = float((terms * measured - wanted).abs().max())
    if terms < 1 or abs(float(ratio) - terms) > NEAR * terms or wrong > NEAR * float(wanted.abs().max()):
        raise CurvebenchError(
            "the task's criterion is not the mean over terms of its likelihood's negative logarithm: their Hessians in "
            f"the outputs differ by {float(ratio):g} in one direction and by other factors elsewhere: use "
            "fisher = 'empirical'"
        )
    return terms


def _class_dimension(outputs: tuple[int, ...], targets: tuple[int, ...]) -> int:
    """Where the classes lie: last, or second as in ``torch.nn.functional.cross_entropy``."""
    fits = {dim for dim in (1, len(outputs) - 1) if dim > 0 and outputs[:dim] + outputs[dim + 1 :] == targets}
    if len(fits) != 1:
        raise CurvebenchError(
            f"outputs {list(outputs)} and targets {list(targets)}: the classes must be the second or the last "
            "dimension of the outputs, and the only one that the targets lack"
        )
    return fits.pop()
