"""The jax twin of the CIFAR ResNets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curvebench.oracle.jax import Apply


def jax_resnet(blocks: Sequence[Any], norm: str, groups: int, train: bool) -> Apply:
    """``apply(params, buffers, images, tap) -> (logits, batch statistics)`` in training or evaluation mode."""
    from jax.nn import relu

    from curvebench.tasks.layers_jax import batch_norm, conv2d, group_norm, linear

    def apply(params: dict[str, Any], buffers: dict[str, Any], images: Any, tap: Any) -> tuple[Any, dict[str, Any]]:
        statistics: dict[str, Any] = {}

        def normalise(name: str, x: Any) -> Any:
            if norm == "group":
                return group_norm(params, name, x, groups=groups)
            return batch_norm(params, buffers, name, x, statistics, train=train)

        hidden = relu(normalise("norm1", conv2d(params, "conv1", images, tap, padding=1)))
        for name, _, _, stride in blocks:
            inner = relu(
                normalise(f"{name}.norm1", conv2d(params, f"{name}.conv1", hidden, tap, stride=stride, padding=1))
            )
            inner = normalise(f"{name}.norm2", conv2d(params, f"{name}.conv2", inner, tap, padding=1))
            if stride != 1:
                hidden = normalise(
                    f"{name}.shortcut.1", conv2d(params, f"{name}.shortcut.0", hidden, tap, stride=stride)
                )
            hidden = relu(inner + hidden)
        return linear(params, "linear", hidden.mean(axis=(2, 3)), tap), statistics

    return apply
