"""Wide ResNets for CIFAR (Zagoruyko and Komodakis 2016): 6n + 4 layers, widths 16k-32k-64k, norm before convolution.

M-FAC's WRN-22-2, WRN-40-2 and WRN-22-4 have 1,092,836, 2,258,084 and 4,325,252 parameters for 100 classes: every
convolution has a bias. Without dropout; the first convolution of a stage has its stride, and a 1x1 convolution of the
block's input is the shortcut where the width changes (both are our choice: the specification gives counts alone).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.cifar_images import CLASSES, assemble
from curvebench.tasks.cifar_resnet import Block
from curvebench.tasks.problem import Problem, generator, kaiming_normal
from curvebench.types import Parameters

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``depth`` (6n + 4), ``widen``, and those of :mod:`curvebench.tasks.cifar_images`."""
    options: Mapping[str, Any] = scale.options
    depth, widen, classes = int(options["depth"]), int(options["widen"]), CLASSES[str(card.dataset)]
    network = blocks(depth, widen)
    return assemble(
        card,
        scale,
        seed_block,
        initial(generator(card.name, seed_block, "init"), network, classes),
        lambda: torch_wrn(network, classes),
        lambda train: jax_wrn(network, train),
    )


def blocks(depth: int, widen: int) -> tuple[Block, ...]:
    """The residual blocks.

    Raises:
        ValueError: depth is not 6n + 4, or widen is below 1.
    """
    if depth < 10 or (depth - 4) % 6 or widen < 1:
        raise ValueError(f"depth = {depth}, widen = {widen}: must be 6n + 4 with n >= 1, and at least 1")
    found, n_in = [], 16
    for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
        for index in range((depth - 4) // 6):
            found.append(Block(f"layer{stage}.{index}", n_in, width, 2 if stage > 1 and index == 0 else 1))
            n_in = width
    return tuple(found)


def initial(rng: np.random.Generator, network: tuple[Block, ...], classes: int) -> Parameters:
    """He-normal convolutions, zero biases, unit norms, a linear head with N(0, 1/fan_in) weights."""
    parameters: Parameters = {}

    def conv(name: str, n_out: int, n_in: int, size: int) -> None:
        parameters[f"{name}.weight"] = kaiming_normal(rng, (n_out, n_in, size, size))
        parameters[f"{name}.bias"] = np.zeros(n_out)

    def norm(name: str, width: int) -> None:
        parameters[f"{name}.weight"] = np.ones(width)
        parameters[f"{name}.bias"] = np.zeros(width)

    conv("conv1", 16, 3, 3)
    for block in network:
        norm(f"{block.name}.norm1", block.n_in)
        conv(f"{block.name}.conv1", block.n_out, block.n_in, 3)
        norm(f"{block.name}.norm2", block.n_out)
        conv(f"{block.name}.conv2", block.n_out, block.n_out, 3)
        if block.n_in != block.n_out:
            conv(f"{block.name}.shortcut", block.n_out, block.n_in, 1)
    norm("norm", network[-1].n_out)
    parameters["linear.weight"] = kaiming_normal(rng, (classes, network[-1].n_out), gain=1.0)
    parameters["linear.bias"] = np.zeros(classes)
    return parameters


def torch_wrn(network: tuple[Block, ...], classes: int) -> nn.Module:
    """The torch twin."""
    import torch.nn.functional as F
    from torch import Tensor, nn

    from curvebench.oracle.batchnorm_torch import BatchNorm2d

    class Residual(nn.Module):
        def __init__(self, block: Block) -> None:
            super().__init__()
            self.norm1 = BatchNorm2d(block.n_in)
            self.conv1 = nn.Conv2d(block.n_in, block.n_out, 3, block.stride, 1)
            self.norm2 = BatchNorm2d(block.n_out)
            self.conv2 = nn.Conv2d(block.n_out, block.n_out, 3, 1, 1)
            self.shortcut = (
                nn.Identity() if block.n_in == block.n_out else nn.Conv2d(block.n_in, block.n_out, 1, block.stride)
            )

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.conv1(F.relu(self.norm1(x)))
            out: Tensor = self.conv2(F.relu(self.norm2(hidden))) + self.shortcut(x)
            return out

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1)
            for stage in (1, 2, 3):
                members = [Residual(block) for block in network if block.name.startswith(f"layer{stage}.")]
                self.add_module(f"layer{stage}", nn.Sequential(*members))
            self.norm = BatchNorm2d(network[-1].n_out)
            self.linear = nn.Linear(network[-1].n_out, classes)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.conv1(x)
            for stage in (1, 2, 3):
                hidden = self.get_submodule(f"layer{stage}")(hidden)
            logits: Tensor = self.linear(F.relu(self.norm(hidden)).mean(dim=(2, 3)))
            return logits

    return Wide()


def jax_wrn(network: tuple[Block, ...], train: bool) -> Apply:
    """The jax twin."""
    from jax.nn import relu

    from curvebench.tasks.layers_jax import batch_norm, conv2d, linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], images: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        statistics: dict[str, Any] = {}

        def normal(name: str, x: Any) -> Any:
            return relu(batch_norm(params, buffers, name, x, statistics, train=train))

        x = conv2d(params, "conv1", images, tap, padding=1)
        for name, n_in, n_out, stride in network:
            hidden = conv2d(params, f"{name}.conv1", normal(f"{name}.norm1", x), tap, stride=stride, padding=1)
            hidden = conv2d(params, f"{name}.conv2", normal(f"{name}.norm2", hidden), tap, padding=1)
            x = hidden + (x if n_in == n_out else conv2d(params, f"{name}.shortcut", x, tap, stride=stride))
        return linear(params, "linear", normal("norm", x).mean(axis=(2, 3)), tap), statistics

    return apply
