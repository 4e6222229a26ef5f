"""The part of a gradient that does not change the length of the weights, in torch (arXiv 2501.04697)."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-30
"""Added to squared lengths in denominators, as in the authors' code."""


def orthogonal_gradient(w: Tensor, g: Tensor, rescale: bool = False) -> Tensor:
    """``g - (w'g / w'w) w`` over all elements of a tensor; ``rescale``: stretched to the length of g.

    Args:
        w: the weights.
        g: their gradient, of the same shape.
        rescale: what the authors' code does and the paper's equation does not.
    """
    part = g - torch.sum(w * g) / (torch.sum(w * w) + EPS) * w
    if rescale:
        part = part * (g.norm() / (part.norm() + EPS))
    return part
