"""BatchNorm whose running statistics belong to the harness (torch).

Queries never change model state. In training mode the layer normalises with the batch's own statistics; the first
forward of a step also writes them, at no extra pass, into scratch buffers (``momentum = 1``), and the harness folds
them into the running statistics once per step: ``running <- running + momentum (batch - running)``, torch's rule with
the unbiased variance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the same parameters, buffers and evaluation, and side-effect-free training forwards."""

    pending: bool = False
    """True while the next training forward should record the batch's statistics."""
    batch_mean: Tensor
    batch_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.register_buffer("batch_mean", torch.zeros(num_features), persistent=False)
        self.register_buffer("batch_var", torch.ones(num_features), persistent=False)
        self.recorded = False

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input [batch, channels, height, width]``."""
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        if self.pending:
            self.pending = False
            self.recorded = True
            return F.batch_norm(input, self.batch_mean, self.batch_var, self.weight, self.bias, True, 1.0, self.eps)
        return F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)


class RunningStatistics:
    """All the BatchNorm layers of a module, updated together once per step."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = [m for m in module.modules() if isinstance(m, BatchNorm2d)]
        self._running: list[Tensor] = []
        self._batch: list[Tensor] = []
        for layer in self.layers:
            assert layer.running_mean is not None
            assert layer.running_var is not None
            self._running += [layer.running_mean, layer.running_var]
            self._batch += [layer.batch_mean, layer.batch_var]
        self._momentum = self.layers[0].momentum if self.layers else None

    def arm(self) -> None:
        """Let the next training forward record its batch statistics."""
        for layer in self.layers:
            layer.pending = True

    @torch.no_grad()
    def commit(self) -> None:
        """Fold the recorded statistics into the running ones; nothing recorded, nothing changed."""
        if self.layers and self.layers[0].recorded and self._momentum is not None:
            torch._foreach_lerp_(self._running, self._batch, self._momentum)
        for layer in self.layers:
            layer.pending = layer.recorded = False
