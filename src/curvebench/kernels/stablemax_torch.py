"""StableMax in torch (Prieto et al. 2025, arXiv 2501.04697): a softmax whose exponential grows linearly.

``s(z) = z + 1`` for ``z >= 0``, ``1 / (1 - z)`` below;  ``p_i = s(z_i) / sum_j s(z_j)``. No logit is so large that the
others are absorbed, so cross-entropy keeps a gradient where softmax's rounds to zero. Shapes: logits ``[batch, C]``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_stablemax(logits: Tensor) -> Tensor:
    """``log p`` over the last dimension, in the logits' dtype.

    ``log s`` is ``log1p(z)`` or ``-log1p(-z)``, each of an argument that suits it, so that no derivative of the piece
    that is not taken becomes NaN.
    """
    log_s = torch.where(logits >= 0, torch.log1p(logits.clamp(min=0)), -torch.log1p(-logits.clamp(max=0)))
    return log_s - log_s.logsumexp(-1, keepdim=True)


def stablemax_cross_entropy(logits: Tensor, targets: Tensor, dtype: torch.dtype | None = torch.float64) -> Tensor:
    """``mean -log p_y`` ``[]``: a criterion in place of ``F.cross_entropy``, differentiable twice.

    Args:
        logits: ``[batch, C]``.
        targets: classes ``[batch]``, integers in [0, C).
        dtype: in which it is computed, like the authors' float64; None: the logits'. The result has the logits' dtype.

    Raises:
        ValueError: shapes that do not fit.
    """
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        shapes = f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}"
        raise ValueError(f"stablemax: {shapes}: must be [batch, C] and [batch]")
    log_p = log_stablemax(logits if dtype is None else logits.to(dtype))
    return -log_p.gather(1, targets[:, None]).mean().to(logits.dtype)
