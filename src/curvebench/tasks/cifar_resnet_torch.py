"""The torch twin of the CIFAR ResNets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def torch_resnet(blocks: Sequence[Any], norm: str, groups: int, classes: int = 10) -> nn.Module:
    """Build the network from its blocks ``(name, n_in, n_out, stride)``.

    Raises:
        ValueError: norm is neither ``batch`` nor ``group``.
    """
    import torch.nn.functional as F
    from torch import Tensor, nn

    from curvebench.oracle.batchnorm_torch import BatchNorm2d

    if norm not in ("batch", "group"):
        raise ValueError(f"norm = {norm!r}: must be 'batch' or 'group'")

    def normalise(width: int) -> nn.Module:
        return BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(groups, width)

    class Residual(nn.Module):
        def __init__(self, n_in: int, n_out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
            self.norm1 = normalise(n_out)
            self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
            self.norm2 = normalise(n_out)
            self.shortcut = (
                nn.Identity()
                if stride == 1
                else nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), normalise(n_out))
            )

        def forward(self, x: Tensor) -> Tensor:
            hidden = F.relu(self.norm1(self.conv1(x)))
            return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, blocks[0].n_in, 3, 1, 1, bias=False)
            self.norm1 = normalise(blocks[0].n_in)
            stages: dict[str, list[nn.Module]] = {}
            for name, n_in, n_out, stride in blocks:
                stages.setdefault(name.split(".")[0], []).append(Residual(n_in, n_out, stride))
            self.stages = tuple(stages)
            for name, members in stages.items():
                self.add_module(name, nn.Sequential(*members))
            self.linear = nn.Linear(blocks[-1].n_out, classes)

        def forward(self, x: Tensor) -> Tensor:
            hidden = F.relu(self.norm1(self.conv1(x)))
            for stage in self.stages:
                hidden = self.get_submodule(stage)(hidden)
            logits: Tensor = self.linear(hidden.mean(dim=(2, 3)))
            return logits

    return ResNet()
