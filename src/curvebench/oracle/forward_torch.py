"""Directional derivatives of a closure by forward mode, for an optimiser that is used alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad as _forward_ad

from curvebench.errors import CurvebenchError

forward_ad: Any = _forward_ad  # its functions carry no annotations


@torch.no_grad()
def closure_jvp(
    closure: Callable[[], Any] | None, parameters: Sequence[Tensor], vector: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The loss and ``grad f . v`` at the live parameters, ``[]`` each: one forward with dual numbers, no graph.

    The parameters carry the tangent ``v`` while the closure runs and lose it afterwards; their values are not changed.

    Args:
        closure: returns the loss at the live parameters; must not call ``backward``.
        parameters: leaves.
        vector: ``v``, shaped like the parameters.

    Raises:
        CurvebenchError: there is no closure, or its loss is no tensor, or does not depend on the parameters by
            operations that have a forward derivative.
    """
    if closure is None:
        raise CurvebenchError("a forward gradient needs a closure that returns the loss: step(closure)")
    live = list(parameters)
    with forward_ad.dual_level():
        for p, v in zip(live, vector, strict=True):
            p.copy_(forward_ad.make_dual(p.detach().clone(), v))
        loss = closure()
        if not isinstance(loss, Tensor):
            raise CurvebenchError(f"the closure returned {type(loss).__name__}: it must return the loss's tensor")
        value, derivative = forward_ad.unpack_dual(loss)
        if derivative is None:
            raise CurvebenchError(
                "the closure's loss carries no tangent: it is detached, or does not depend on the parameters"
            )
        return value.clone(), derivative.clone()
