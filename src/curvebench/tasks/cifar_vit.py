"""A small vision transformer (Dosovitskiy et al. 2021) for CIFAR: 4x4 patches, pre-norm blocks, mean over tokens.

Attention is written as matrix products and a softmax, which have derivatives of every order. No dropout and no class
token. Shapes: 64 tokens of ``width``; ``qkv`` is one layer of 3 ``width`` outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from curvebench.cards import TaskCard, TaskScale
from curvebench.tasks.cifar_images import CLASSES, assemble
from curvebench.tasks.problem import Problem, generator
from curvebench.types import Parameters

if TYPE_CHECKING:
    from torch import nn

    from curvebench.oracle.jax import Apply

PATCH, TOKENS = 4, 64


class Shape(NamedTuple):
    """Sizes of the network."""

    width: int
    depth: int
    heads: int
    hidden: int
    classes: int


def problem(card: TaskCard, scale: TaskScale, seed_block: int) -> Problem:
    """Options: ``width``, ``depth``, ``heads``, ``hidden``, and those of :mod:`curvebench.tasks.cifar_images`."""
    options: Mapping[str, Any] = scale.options
    width, depth, heads, hidden = (int(options[key]) for key in ("width", "depth", "heads", "hidden"))
    shape = Shape(width, depth, heads, hidden, CLASSES[str(card.dataset)])
    if shape.width % shape.heads:
        raise ValueError(f"{card.name}: width = {shape.width}: must be a multiple of heads = {shape.heads}")
    return assemble(
        card,
        scale,
        seed_block,
        initial(generator(card.name, seed_block, "init"), shape),
        lambda: torch_vit(shape),
        lambda train: jax_vit(shape),
        batch_norm=False,
    )


def initial(rng: np.random.Generator, shape: Shape) -> Parameters:
    """N(0, 1/fan_in) layers, zero biases, unit norms, N(0, 0.02^2) positions, and a zero head."""
    parameters: Parameters = {"position": 0.02 * rng.standard_normal((TOKENS, shape.width))}

    def layer(name: str, n_out: int, n_in: int) -> None:
        parameters[f"{name}.weight"] = rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)
        parameters[f"{name}.bias"] = np.zeros(n_out)

    def norm(name: str) -> None:
        parameters[f"{name}.weight"] = np.ones(shape.width)
        parameters[f"{name}.bias"] = np.zeros(shape.width)

    layer("patch", shape.width, 3 * PATCH * PATCH)
    for index in range(shape.depth):
        norm(f"blocks.{index}.norm1")
        layer(f"blocks.{index}.qkv", 3 * shape.width, shape.width)
        layer(f"blocks.{index}.project", shape.width, shape.width)
        norm(f"blocks.{index}.norm2")
        layer(f"blocks.{index}.up", shape.hidden, shape.width)
        layer(f"blocks.{index}.down", shape.width, shape.hidden)
    norm("norm")
    parameters["head.weight"] = np.zeros((shape.classes, shape.width))
    parameters["head.bias"] = np.zeros(shape.classes)
    return parameters


def patches(images: Any) -> Any:
    """``[batch, 3, 32, 32] -> [batch, 64, 48]`` in either framework: patches row by row, channel first inside."""
    side = 32 // PATCH
    cut = images.reshape(-1, 3, side, PATCH, side, PATCH)
    order = (0, 2, 4, 1, 3, 5)
    turned = cut.permute(order) if hasattr(cut, "permute") else cut.transpose(order)
    return turned.reshape(-1, TOKENS, 3 * PATCH * PATCH)


def torch_vit(shape: Shape) -> nn.Module:
    """The torch twin."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(shape.width)
            self.qkv = nn.Linear(shape.width, 3 * shape.width)
            self.project = nn.Linear(shape.width, shape.width)
            self.norm2 = nn.LayerNorm(shape.width)
            self.up = nn.Linear(shape.width, shape.hidden)
            self.down = nn.Linear(shape.hidden, shape.width)

        def forward(self, x: Tensor) -> Tensor:
            size = shape.width // shape.heads
            q, k, v = self.qkv(self.norm1(x)).reshape(-1, TOKENS, 3, shape.heads, size).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-1, -2) / size**0.5).softmax(-1)
            x = x + self.project((weights @ v).transpose(1, 2).reshape(-1, TOKENS, shape.width))
            out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
            return out

    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(TOKENS, shape.width))
            self.patch = nn.Linear(3 * PATCH * PATCH, shape.width)
            self.blocks = nn.Sequential(*(Block() for _ in range(shape.depth)))
            self.norm = nn.LayerNorm(shape.width)
            self.head = nn.Linear(shape.width, shape.classes)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.norm(self.blocks(self.patch(patches(x)) + self.position)).mean(dim=1))
            return logits

    return Vit()


def jax_vit(shape: Shape) -> Apply:
    """The jax twin."""
    from jax.nn import gelu, softmax

    from curvebench.tasks.layers_jax import layer_norm, linear

    size = shape.width // shape.heads

    def apply(params: dict[str, Any], buffers: dict[str, Any], images: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        x = linear(params, "patch", patches(images), tap) + params["position"]
        for index in range(shape.depth):
            name = f"blocks.{index}"
            qkv = linear(params, f"{name}.qkv", layer_norm(params, f"{name}.norm1", x), tap)
            q, k, v = qkv.reshape(-1, TOKENS, 3, shape.heads, size).transpose(2, 0, 3, 1, 4)
            weights = softmax(q @ k.swapaxes(-1, -2) / size**0.5, axis=-1)
            x = x + linear(
                params, f"{name}.project", (weights @ v).swapaxes(1, 2).reshape(-1, TOKENS, shape.width), tap
            )
            up = linear(params, f"{name}.up", layer_norm(params, f"{name}.norm2", x), tap)
            x = x + linear(params, f"{name}.down", gelu(up, approximate=False), tap)
        return linear(params, "head", layer_norm(params, "norm", x).mean(axis=1), tap), {}

    return apply
