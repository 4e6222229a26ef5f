"""CIFAR-10's own ResNets (He et al. 2016, section 4.2): 6k + 2 layers, widths 16-32-64, 1x1-convolution shortcuts.

ResNet-20 has 272,474 parameters and ResNet-32 466,906. ``norm = "batch"`` is the paper's network; ``norm = "group"``
normalises each sample alone, for methods that need per-sample gradients.
Shapes: images ``[batch, 3, 32, 32]``, normalised per channel; logits ``[batch, 10]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curvebench import cards
from curvebench.cards import TaskCard, TaskScale
from curvebench.data.cifar import load_cifar10
from curvebench.tasks.cifar_resnet_jax import jax_resnet
from curvebench.tasks.cifar_resnet_torch import torch_resnet
from curvebench.tasks.problem import Problem, Split, batch_size, generator, kaiming_normal
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
    n_in = WIDTHS[0]
    for stage, width in enumerate(WIDTHS, start=1):
        for index in range((depth - 2) // 6):
            yield Block(f"layer{stage}.{index}", n_in, width, 2 if stage > 1 and index == 0 else 1)
            n_in = width


def initial(rng: np.random.Generator, depth: int, classes: int) -> Parameters:
    """He-normal convolutions, unit norms, a linear head with N(0, 1/fan_in) weights and zero bias."""
    parameters: Parameters = {}

    def conv(name: str, n_out: int, n_in: int, size: int) -> None:
        parameters[f"{name}.weight"] = kaiming_normal(rng, (n_out, n_in, size, size))

    def norm(name: str, width: int) -> None:
        parameters[f"{name}.weight"] = np.ones(width)
        parameters[f"{name}.bias"] = np.zeros(width)

    conv("conv1", WIDTHS[0], 3, 3)
    norm("norm1", WIDTHS[0])
    for block in blocks(depth):
        conv(f"{block.name}.conv1", block.n_out, block.n_in, 3)
        norm(f"{block.name}.norm1", block.n_out)
        conv(f"{block.name}.conv2", block.n_out, block.n_out, 3)
        norm(f"{block.name}.norm2", block.n_out)
        if block.stride != 1:
            conv(f"{block.name}.shortcut.0", block.n_out, block.n_in, 1)
            norm(f"{block.name}.shortcut.1", block.n_out)
    parameters["linear.weight"] = kaiming_normal(rng, (classes, WIDTHS[-1]), gain=1.0)
    parameters["linear.bias"] = np.zeros(classes)
    return parameters


def running_statistics(parameters: Parameters) -> dict[str, npt.NDArray[np.float64]]:
    """Zero means and unit variances for every norm layer."""
    buffers = {}
    for name, value in parameters.items():
        if value.ndim == 1 and name.endswith(".weight"):
            prefix = name.removesuffix("weight")
            buffers[f"{prefix}running_mean"] = np.zeros(len(value))
            buffers[f"{prefix}running_var"] = np.ones(len(value))
    return buffers


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``depth``, ``norm`` (batch | group), ``train``, ``validation``, ``test`` (numbers of samples).

    The validation set is the tail of the official training set (never trained on); subsets are the first images of
    each part in official order, the same for every seed block.
    """
    options: Mapping[str, Any] = scale.options
    depth, norm = int(options["depth"]), str(options["norm"])
    dataset = cards.dataset("cifar10")
    cifar = load_cifar10()
    n_train, n_validation, n_test = (int(options[key]) for key in ("train", "validation", "test"))
    held_out = len(cifar.train_labels) - dataset.splits["validation"]
    if not (n_train <= held_out and n_validation <= len(cifar.train_labels) - held_out):
        raise ValueError(
            f"{card.name}: train = {n_train}, validation = {n_validation}: must be at most {held_out} and 5000"
        )
    parameters = initial(generator(card.name, seed_block, "init"), depth, 10)
    normalisation = dataset.normalisation
    assert normalisation is not None
    return Problem(
        name=card.name,
        seed_block=seed_block,
        parameters=parameters,
        buffers=running_statistics(parameters) if norm == "batch" else {},
        train=Split(cifar.train_images[:n_train], cifar.train_labels[:n_train]),
        validation=Split(cifar.train_images[held_out:][:n_validation], cifar.train_labels[held_out:][:n_validation]),
        test=Split(cifar.test_images[:n_test], cifar.test_labels[:n_test]),
        train_probe=n_validation,
        criterion="cross-entropy",
        metric="accuracy",
        torch_module=lambda: torch_resnet(tuple(blocks(depth)), norm, GROUPS),
        jax_apply=lambda train: jax_resnet(tuple(blocks(depth)), norm, GROUPS, train),
        batch=batch_size(scale),
        normalisation=(tuple(normalisation.mean), tuple(normalisation.std)),
    )
