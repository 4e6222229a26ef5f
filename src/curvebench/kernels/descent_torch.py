"""Update rules for a gradient that was estimated: in place, over lists of tensors, without a look at ``p.grad``."""

from __future__ import annotations

import torch
from torch import Tensor


def momentum_(
    parameters: list[Tensor],
    gradient: list[Tensor],
    buffers: list[Tensor],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """``b <- momentum b + g + weight_decay theta``;  ``theta <- theta - lr b``: ``torch.optim.SGD``'s rule.

    Args:
        parameters: changed.
        gradient: changed when there is decay.
        buffers: one per parameter, zeros at first; not looked at without momentum.
        lr: step size.
        momentum: 0 for none.
        weight_decay: coupled decay.
    """
    if weight_decay:
        torch._foreach_add_(gradient, parameters, alpha=weight_decay)
    if momentum:
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradient)
        gradient = buffers
    torch._foreach_add_(parameters, gradient, alpha=-lr)


def adam_(
    parameters: list[Tensor],
    gradient: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    *,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """``m <- b1 m + (1-b1) g``, ``v <- b2 v + (1-b2) g^2``, ``theta <- theta - lr mhat / (sqrt(vhat) + eps)``.

    Bias-corrected moments; decay is decoupled, ``theta <- (1 - lr weight_decay) theta`` first.

    Args:
        parameters: changed.
        gradient: one per parameter.
        first: ``m``, zeros at first.
        second: ``v``, zeros at first.
        t: number of this step, from 1.
        lr: step size.
        betas: ``(b1, b2)``.
        eps: added outside the root.
        weight_decay: multiplied by lr.
    """
    b1, b2 = betas
    if weight_decay:
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
    torch._foreach_lerp_(first, gradient, 1 - b1)
    torch._foreach_mul_(second, b2)
    torch._foreach_addcmul_(second, gradient, gradient, 1 - b2)
    scale = torch._foreach_div(second, 1 - b2**t)
    torch._foreach_sqrt_(scale)
    torch._foreach_add_(scale, eps)
    torch._foreach_addcdiv_(parameters, first, scale, -lr / (1 - b1**t))
