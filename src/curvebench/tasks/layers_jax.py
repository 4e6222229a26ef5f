"""Layers of the jax twins: torch's parameter names, layouts and arithmetic, so that both twins share one set of bits.

Weights are ``[out, in]`` and ``[out, in, kh, kw]``, images ``[batch, channels, height, width]``. Functions on a flat
dict beat a layer library here: the dict's keys are torch's names, and a tap can watch each layer.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from curvebench.kernels.geometry import Geometry
from curvebench.oracle.capture_jax import Tap
from curvebench.oracle.jax import Buffers, Params


def linear(params: Params, name: str, inputs: Array, tap: Tap | None = None) -> Array:
    """``y = x W^T + b``; the bias is optional."""
    outputs = inputs @ params[f"{name}.weight"].T
    if f"{name}.bias" in params:
        outputs = outputs + params[f"{name}.bias"]
    return outputs if tap is None else tap(name, inputs, outputs)


def conv2d(
    params: Params,
    name: str,
    inputs: Array,
    tap: Tap | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
) -> Array:
    """Cross-correlation as in ``nn.Conv2d``; the bias is optional."""
    weight = params[f"{name}.weight"]
    (down, right), (rows, columns), apart = (_pair(value) for value in (stride, padding, dilation))
    outputs = lax.conv_general_dilated(
        inputs,
        weight,
        (down, right),
        ((rows, rows), (columns, columns)),
        rhs_dilation=apart,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    if f"{name}.bias" in params:
        outputs = outputs + params[f"{name}.bias"][:, None, None]
    if tap is None:
        return outputs
    kernel = (weight.shape[2], weight.shape[3])
    return tap(name, inputs, outputs, Geometry(kernel, (down, right), (columns, columns, rows, rows), apart))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def batch_norm(
    params: Params,
    buffers: Buffers,
    name: str,
    inputs: Array,
    statistics: Buffers,
    *,
    train: bool,
    eps: float = 1e-5,
) -> Array:
    """``nn.BatchNorm2d``: biased variance to normalise with, unbiased variance into ``statistics``.

    In training mode the batch's own statistics normalise, and are written to the dict ``statistics`` under torch's
    buffer names; in evaluation mode the running ones of ``buffers`` do.
    """
    if train:
        mean = jnp.mean(inputs, axis=(0, 2, 3))
        variance = jnp.mean(jnp.square(inputs - mean[:, None, None]), axis=(0, 2, 3))
        n = inputs.shape[0] * inputs.shape[2] * inputs.shape[3]
        statistics[f"{name}.running_mean"] = lax.stop_gradient(mean)
        statistics[f"{name}.running_var"] = lax.stop_gradient(variance * (n / (n - 1)))
    else:
        mean, variance = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
    scale = params[f"{name}.weight"] * lax.rsqrt(variance + eps)
    return (inputs - mean[:, None, None]) * scale[:, None, None] + params[f"{name}.bias"][:, None, None]


def group_norm(params: Params, name: str, inputs: Array, *, groups: int, eps: float = 1e-5) -> Array:
    """``nn.GroupNorm``: statistics over each sample's channel group and positions."""
    batch, channels, height, width = inputs.shape
    grouped = inputs.reshape(batch, groups, -1)
    mean = grouped.mean(axis=-1, keepdims=True)
    variance = jnp.square(grouped - mean).mean(axis=-1, keepdims=True)
    normal = ((grouped - mean) * lax.rsqrt(variance + eps)).reshape(batch, channels, height, width)
    return normal * params[f"{name}.weight"][:, None, None] + params[f"{name}.bias"][:, None, None]


def layer_norm(params: Params, name: str, inputs: Array, *, eps: float = 1e-5) -> Array:
    """``nn.LayerNorm`` over the last axis."""
    mean = inputs.mean(axis=-1, keepdims=True)
    variance = jnp.square(inputs - mean).mean(axis=-1, keepdims=True)
    return (inputs - mean) * lax.rsqrt(variance + eps) * params[f"{name}.weight"] + params[f"{name}.bias"]
