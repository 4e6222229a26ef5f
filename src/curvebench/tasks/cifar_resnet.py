"""ResNets for CIFAR: He et al.'s own (2016, section 4.2), 6k + 2 layers of widths 16-32-64, and ResNet-18.

Shortcuts are 1x1 convolutions: ResNet-20 has 272,474 parameters and ResNet-32 466,906. ResNet-18 is ImageNet's with a
3x3 stem of stride 1 and without pooling behind it: 11,220,132 parameters for 100 classes.
``norm = "batch"`` is the papers' network; ``norm = "group"``
normalises each sample alone, for methods that need per-sample gradients.
Shapes: images ``[batch, 3, 32, 32]``, normalised per channel; logits ``[batch, 10]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from curvebench.cards import TaskCard, TaskScale
from curvebench.data.cifar import load_cifar10
from curvebench.tasks.cifar_images import CLASSES, assemble
from curvebench.tasks.cifar_resnet_jax import jax_resnet
from curvebench.tasks.cifar_resnet_torch import torch_resnet
from curvebench.tasks.problem import Problem, generator, kaiming_normal
from curvebench.types import Parameters

WIDTHS = (16, 32, 64)
GROUPS = 8


class Block(NamedTuple):
    """One residual block: parameter prefix, channels in and out, stride."""

    name: str
    n_in: int
    n_out: int
    stride: int


def blocks(depth: int) -> Iterator[Block]:
    """The residual blocks of a network of ``depth`` = 6k + 2 layers.

    Raises:
        ValueError: depth is not of that form.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth = {depth}: must be 6k + 2 with k >= 1")
    return stages(WIDTHS, (depth - 2) // 6)


def stages(widths: tuple[int, ...], repeats: int) -> Iterator[Block]:
    """``repeats`` blocks of each width; a stage after the first begins with stride 2. ResNet-18: 64-128-256-512, 2."""
    n_in = widths[0]
    for stage, width in enumerate(widths, start=1):
        for index in range(repeats):
            yield Block(f"layer{stage}.{index}", n_in, width, 2 if stage > 1 and index == 0 else 1)
            n_in = width


def initial(rng: np.random.Generator, network: tuple[Block, ...], classes: int) -> Parameters:
    """He-normal convolutions, unit norms, a linear head with N(0, 1/fan_in) weights and zero bias."""
    parameters: Parameters = {}

    def conv(name: str, n_out: int, n_in: int, size: int) -> None:
        parameters[f"{name}.weight"] = kaiming_normal(rng, (n_out, n_in, size, size))

    def norm(name: str, width: int) -> None:
        parameters[f"{name}.weight"] = np.ones(width)
        parameters[f"{name}.bias"] = np.zeros(width)

    conv("conv1", network[0].n_in, 3, 3)
    norm("norm1", network[0].n_in)
    for block in network:
        conv(f"{block.name}.conv1", block.n_out, block.n_in, 3)
        norm(f"{block.name}.norm1", block.n_out)
        conv(f"{block.name}.conv2", block.n_out, block.n_out, 3)
        norm(f"{block.name}.norm2", block.n_out)
        if block.stride != 1:
            conv(f"{block.name}.shortcut.0", block.n_out, block.n_in, 1)
            norm(f"{block.name}.shortcut.1", block.n_out)
    parameters["linear.weight"] = kaiming_normal(rng, (classes, network[-1].n_out), gain=1.0)
    parameters["linear.bias"] = np.zeros(classes)
    return parameters


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``depth`` (6k + 2, or 18), ``norm`` (batch | group), and :mod:`curvebench.tasks.cifar_images`'s."""
    options: Mapping[str, Any] = scale.options
    depth, norm, classes = int(options["depth"]), str(options["norm"]), CLASSES[str(card.dataset)]
    network = tuple(stages((64, 128, 256, 512), 2) if depth == 18 else blocks(depth))
    return assemble(
        card,
        scale,
        seed_block,
        initial(generator(card.name, seed_block, "init"), network, classes),
        lambda: torch_resnet(network, norm, GROUPS, classes),
        lambda train: jax_resnet(network, norm, GROUPS, train),
        cifar=load_cifar10() if card.dataset == "cifar10" else None,
        batch_norm=norm == "batch",
    )
